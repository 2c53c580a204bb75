// Config: the file itself in an editor that checks while one types, the generations before it, import and export.

import { Failure } from "../shared/api.js";
import { h, Part, put } from "../shared/dom.js";
import { moment, number, t } from "../shared/i18n.js";
import { attempt, badge, button, choice, copy, dialog, download, field, notice, problem, table } from "../shared/ui.js";
import { changeList } from "./changes.js";
import { live } from "./live.js";
import { call } from "./session.js";

const PAUSE_MS = 350;

class ConfigView extends Part {
  start() {
    this.editor = h("section", { class: "card stack" });
    this.history = h("section", { class: "card" });
    put(this, this.editor, h("div", { class: "two" }, this.history, h("section", { class: "card stack" }, h("h2", {}, t("config.inout")), this.importer(), this.exporter())));
    this.closed();
    this.loadHistory();
    live.watch(({ config }) => this.noticed(config.generation), this.signal);
  }

  // The editor

  async closed() {
    this.area = null;
    const [config, generation] = await this.masked();
    put(
      this.editor,
      h("header", {}, h("h2", {}, t("config.file")), button(t("config.edit"), (pressed) => this.open(pressed), "primary")),
      h("p", { class: "hint" }, t("config.maskedText")),
      h("pre", { class: "file", tabindex: 0, "aria-label": t("config.file") }, config ? JSON.stringify(config, null, 2) : ""),
    );
    this.generation = generation;
  }

  /** What stands in the file, secrets masked: the last generation, as the history has it. */
  async masked() {
    const found = await attempt(() => call("GET", "admin/config/generations", { signal: this.signal }));
    if (!found) return [null, 0];
    const one = await attempt(() => call("GET", `admin/config/generations/${found.current}`, { signal: this.signal }));
    return [one?.config, found.current];
  }

  async open(pressed) {
    const answer = await attempt(async () => {
      const { generation } = await call("GET", "admin/settings");
      return { generation, ...(await call("GET", "admin/config/export")) };
    }, pressed);
    if (!answer) return;
    this.generation = answer.generation;
    this.area = h("textarea", { class: "mono editor", rows: 24, spellcheck: "false", value: answer.json, "aria-label": t("config.file"), on: { input: () => this.typed() } });
    this.found = h("div", { class: "found", role: "status" });
    this.saveButton = button(t("settings.review"), () => this.review(), "primary", { disabled: true });
    put(
      this.editor,
      h("header", {}, h("h2", {}, t("config.file")), h("div", { class: "row" }, button(t("common.cancel"), () => this.closed()), this.saveButton)),
      h("p", { class: "hint" }, t("config.openText")),
      this.area,
      this.found,
    );
    this.area.focus();
  }

  typed() {
    this.saveButton.disabled = true;
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.check(), PAUSE_MS);
  }

  async check() {
    const text = this.area.value;
    const answer = await attempt(() => call("POST", "admin/config/check", { body: { text }, signal: this.signal }));
    if (!answer || text !== this.area?.value) return null;
    this.saveButton.disabled = !answer.valid || !answer.changes.length;
    this.area.setAttribute("aria-invalid", String(!answer.valid));
    if (answer.valid) put(this.found, badge(t("config.valid", { count: number(answer.changes.length) }), "good"));
    else put(this.found, h("ul", { class: "errors" }, answer.errors.map((error) => this.error(error))));
    return answer;
  }

  error({ path, message, hint }) {
    const go = () => {
      const [begin, end] = placeOf(this.area.value, path, message);
      this.area.focus();
      this.area.setSelectionRange(begin, end);
      const line = this.area.value.slice(0, begin).split("\n").length;
      this.area.scrollTop = (line - 4) * (this.area.scrollHeight / this.area.value.split("\n").length);
    };
    return h("li", {}, button(path || "·", go, "link mono"), ` ${message}`, hint && h("span", { class: "hint" }, ` (${hint})`));
  }

  async review() {
    const answer = await this.check();
    if (!answer?.valid) return;
    const go = await dialog(t("settings.reviewTitle"), (close) => [
      changeList(answer.changes),
      h("footer", {}, button(t("common.cancel"), () => close(false)), button(t("common.save"), () => close(true), "primary")),
    ], { wide: true });
    if (go) await this.save(this.generation);
  }

  async save(generation) {
    try {
      await call("POST", "admin/config/import", { body: { mode: "replace", config: JSON.parse(this.area.value) }, generation });
      notice(t("common.saved"));
      await Promise.all([this.closed(), this.loadHistory()]);
    } catch (error) {
      if (error instanceof Failure && error.status === 409) await this.conflict();
      else notice(problem(error), "bad");
    }
  }

  /** The file changed meanwhile: what saving mine would undo or do to theirs, and theirs whole beside mine. */
  async conflict() {
    const theirs = await attempt(async () => ({ ...(await call("GET", "admin/settings")), ...(await call("GET", "admin/config/export")) }));
    const answer = await this.check();
    if (!theirs || !answer) return;
    const choose = await dialog(t("conflict.title"), (close) => [
      h("p", {}, t("conflict.fileText")),
      h("h3", {}, t("conflict.difference")),
      changeList(answer.changes),
      h("div", { class: "two" }, side(t("conflict.mine"), this.area.value), side(t("conflict.theirs"), theirs.json)),
      h("footer", {}, button(t("common.cancel"), () => close()), button(t("conflict.takeTheirs"), () => close("theirs")), button(t("conflict.saveMine"), () => close("mine"), "danger")),
    ], { wide: true });
    if (choose === "mine") await this.save(theirs.generation);
    if (choose === "theirs") {
      this.area.value = theirs.json;
      this.generation = theirs.generation;
      await this.check();
    }
  }

  /** Another generation holds now. */
  noticed(generation) {
    if (!generation || generation === this.told) return;
    const first = this.told === undefined;
    this.told = generation;
    if (first) return;
    this.loadHistory();
    if (!this.area) this.closed();
    else if (generation !== this.generation) put(this.found, h("p", { class: "alarm warn" }, t("settings.elsewhere")));
  }

  // Generations

  async loadHistory() {
    const answer = await attempt(() => call("GET", "admin/config/generations", { signal: this.signal }));
    if (!answer) return;
    const columns = [
      [t("config.number"), (one) => [number(one.generation), one.current && [" ", badge(t("config.current"), "good")]]],
      [t("config.since"), (one) => moment(one.since)],
      [t("config.digest"), (one) => h("code", {}, one.digest.slice(0, 12))],
      ["", (one) => (one.current ? null : button(t("config.compare"), (pressed) => this.compare(one, pressed), "small")), "num"],
    ];
    put(this.history, h("h2", {}, t("config.generations")), table(columns, answer.generations, { caption: t("config.generations"), none: t("config.noHistory") }));
  }

  async compare(one, pressed) {
    const answer = await attempt(() => call("GET", `admin/config/generations/${one.generation}`), pressed);
    if (!answer) return;
    const back = await dialog(t("config.compareTitle", { number: one.generation }), (close) => [
      h("p", { class: "hint" }, t("config.compareText")),
      changeList(answer.changes),
      h("footer", {}, button(t("common.cancel"), () => close(false)), button(t("config.rollback"), () => close(true), "danger")),
    ], { wide: true });
    if (!back) return;
    const done = await attempt(() => call("POST", "admin/config/rollback", { body: { generation: one.generation } }));
    if (done) notice(t("config.rolledBack", { number: one.generation }));
  }

  // Import and export

  importer() {
    const text = h("textarea", { rows: 5, class: "mono", spellcheck: "false", placeholder: "{ … }" });
    const file = h("input", { type: "file", accept: ".json,application/json,text/plain", on: { change: async () => (text.value = await file.files[0].text()) } });
    const mode = choice([["merge", t("config.merge")], ["replace", t("config.replace")]], "merge");
    const go = async (pressed) => {
      const body = { mode: mode.value, config: text.value.trim() };
      const dry = await attempt(() => call("POST", "admin/config/import?dry_run=1", { body }), pressed);
      if (!dry) return;
      const sure = await dialog(t("config.importTitle"), (close) => [
        changeList(dry.changes),
        h("footer", {}, button(t("common.cancel"), () => close(false)), button(t("config.import"), () => close(true), "primary", { disabled: !dry.changes.length })),
      ], { wide: true });
      const done = sure && (await attempt(() => call("POST", "admin/config/import", { body })));
      if (done) notice(t("config.imported", { keys: done.imported_keys, accounts: done.imported_accounts }));
    };
    return h("div", { class: "stack" }, field(t("config.importText"), text, t("config.importHint")), field(t("config.importFile"), file), h("div", { class: "row low" }, field(t("config.mode"), mode), button(t("config.preview"), go)));
  }

  exporter() {
    const take = async (use, pressed) => {
      const answer = await attempt(() => call("GET", "admin/config/export"), pressed);
      if (answer) use(answer);
    };
    return h(
      "div",
      { class: "stack" },
      h("h3", {}, t("config.export")),
      h("p", { class: "hint" }, t("config.exportText")),
      h(
        "div",
        { class: "row" },
        button(t("config.saveJson"), (pressed) => take(({ json }) => download("config.json", json, "application/json"), pressed)),
        button(t("config.copyBase64"), (pressed) => take(({ base64 }) => copy(base64), pressed)),
      ),
    );
  }
}

function side(title, text) {
  return h("div", { class: "stack" }, h("h3", {}, title), h("pre", { class: "file", tabindex: 0, "aria-label": title }, text));
}

/** Where an error is in the text: the line that the reader named, or the last name of the path, looked for in order. */
function placeOf(text, path, message) {
  const said = /line (\d+) column (\d+)/.exec(message);
  if (said) {
    const begin = text.split("\n").slice(0, Number(said[1]) - 1).join("\n").length + Number(said[2]);
    return [Math.max(0, begin - 1), begin];
  }
  let begin = 0;
  let end = 0;
  for (const name of path.match(/[A-Za-z0-9_$-]+|"(?:[^"\\]|\\.)*"/g) ?? []) {
    const found = text.indexOf(name.startsWith('"') ? name : `"${name}"`, end);
    if (found < 0) continue; // the number of an entry
    begin = found;
    end = found + name.length + 2;
  }
  return [begin, end];
}

customElements.define("ds-config", ConfigView);
