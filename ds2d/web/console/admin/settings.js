// Settings: every key that counts at once, with what it means, its bounds, where it comes from, and its default.

import { Failure } from "../shared/api.js";
import { h, Part, put } from "../shared/dom.js";
import { named, t } from "../shared/i18n.js";
import { attempt, badge, button, choice, dialog, notice, problem } from "../shared/ui.js";
import { changeList } from "./changes.js";
import { live } from "./live.js";
import { call, renew } from "./session.js";

class Settings extends Part {
  start() {
    this.load();
    live.watch(({ config }) => this.noticed(config.generation), this.signal);
  }

  async load() {
    const settings = await attempt(() => call("GET", "admin/settings", { signal: this.signal }));
    if (settings) this.show(settings);
  }

  /** The config changed elsewhere: show it, unless something here would be lost. */
  noticed(generation) {
    if (!this.settings || !generation || generation === this.settings.generation) return;
    if (this.changed().length) put(this.elsewhere, h("p", { class: "alarm warn", role: "status" }, t("settings.elsewhere"), " ", button(t("common.again"), () => this.load(), "small")));
    else this.load();
  }

  show(settings) {
    this.settings = settings;
    this.controls = new Map();
    const groups = grouped(settings.bounds);
    this.elsewhere = h("div", {});
    this.find = h("input", { type: "search", placeholder: t("settings.search"), "aria-label": t("settings.search"), on: { input: () => this.filter() } });
    this.saveButton = button(t("settings.review"), () => this.review(), "primary", { disabled: true });
    put(
      this,
      h("div", { class: "card row bar" }, h("div", { class: "grow narrow" }, this.find), h("span", { class: "grow" }), this.saveButton),
      this.elsewhere,
      [...groups].map(([group, entries]) => h("section", { class: "card" }, h("h2", {}, group), entries.map(([path, bounds]) => this.line(path, bounds)))),
      password(),
    );
  }

  line(path, bounds) {
    const control = controlOf(bounds, valueAt(this.settings, path));
    const held = bounds.origin === "flag" || bounds.origin.startsWith("$");
    control.node.id = `s-${path}`;
    control.node.setAttribute("aria-describedby", `a-${path}`);
    control.node.disabled = held;
    control.node.addEventListener("input", () => this.touched());
    this.controls.set(path, control);
    const range = bounds.min !== undefined || bounds.max !== undefined ? t("settings.range", { min: bounds.min ?? "–", max: bounds.max ?? "–" }) : "";
    const facts = [range, t("settings.default", { value: written(bounds.default) }), t("settings.origin", { origin: named("origin", bounds.origin) })];
    return h(
      "div",
      { class: "setting", "data-path": path },
      h("div", {}, h("label", { for: `s-${path}` }, h("code", {}, path)), h("p", { class: "hint", id: `a-${path}` }, meaning(path, bounds), h("br"), facts.filter(Boolean).join(" · "))),
      h("div", { class: "control" }, control.node, held && badge(t("settings.held"), "warn")),
    );
  }

  filter() {
    const wanted = this.find.value.toLowerCase();
    for (const line of this.querySelectorAll(".setting")) line.hidden = !line.textContent.toLowerCase().includes(wanted);
    for (const card of this.querySelectorAll("section.card")) card.hidden = !card.querySelector(".setting:not([hidden])") && Boolean(wanted);
  }

  touched() {
    this.saveButton.disabled = !this.changed().length;
  }

  /** What the controls say otherwise than what holds: {path, old, new}; `wrong` where it cannot be read. */
  changed() {
    const found = [];
    for (const [path, control] of this.controls ?? []) {
      const old = valueAt(this.settings, path);
      let value = old;
      try {
        value = control.read();
      } catch (error) {
        found.push({ path, kind: "changed", old, wrong: error.message });
        continue;
      }
      if (JSON.stringify(value ?? null) !== JSON.stringify(old ?? null)) found.push({ path, kind: "changed", old, new: value });
    }
    return found;
  }

  async review() {
    const changes = this.changed();
    const wrong = changes.find((one) => one.wrong);
    if (wrong) return notice(`${wrong.path}: ${wrong.wrong}`, "bad");
    const go = await dialog(t("settings.reviewTitle"), (close) => [
      changeList(changes),
      h("footer", {}, button(t("common.cancel"), () => close(false)), button(t("common.save"), () => close(true), "primary")),
    ]);
    if (go) await this.save(changes, this.settings.generation);
  }

  async save(changes, generation) {
    try {
      await call("PUT", "admin/settings", { body: bodyOf(changes), generation });
      notice(t("common.saved"));
      await this.load();
    } catch (error) {
      if (error instanceof Failure && error.status === 409) await this.conflict(changes, generation, error);
      else notice(problem(error), "bad");
    }
  }

  /** Somebody else was quicker: show both sides of what was changed here, and let the operator choose for each. */
  async conflict(changes, generation, error) {
    const theirs = await attempt(() => call("GET", "admin/settings"));
    if (!theirs) return;
    if (theirs.generation === generation) return notice(problem(error), "bad"); // nobody was: the file is broken, and no choice mends it
    const kept = new Map(changes.map((one) => [one.path, true]));
    const line = (one) => {
      const side = (mine, value) => {
        const id = `side-${one.path}-${mine}`;
        const pick = h("input", { type: "radio", id, name: one.path, checked: mine, on: { change: () => kept.set(one.path, mine) } });
        return h("label", { class: "check", for: id }, pick, h("span", {}, mine ? t("conflict.mine") : t("conflict.theirs"), " ", h("code", {}, written(value))));
      };
      return h("fieldset", { class: "sides" }, h("legend", {}, h("code", {}, one.path), " ", h("span", { class: "hint" }, t("conflict.before", { value: written(one.old) }))), side(true, one.new), side(false, valueAt(theirs, one.path)));
    };
    const go = await dialog(t("conflict.title"), (close) => [
      h("p", {}, t("conflict.text")),
      changes.map(line),
      h("footer", {}, button(t("common.cancel"), () => close(false)), button(t("conflict.save"), () => close(true), "primary")),
    ]);
    if (!go) return;
    const mine = changes.filter((one) => kept.get(one.path));
    if (mine.length) await this.save(mine.map((one) => ({ ...one, old: valueAt(theirs, one.path) })), theirs.generation);
    else await this.load();
  }
}

/** What a setting means: in the reader's language, else as the schema says it. */
function meaning(path, bounds) {
  const said = named("about", path);
  return said === path ? bounds.about : said;
}

function password() {
  const input = h("input", { type: "password", minlength: 12, autocomplete: "new-password", "aria-label": t("settings.password") });
  const change = async (pressed) => {
    const answer = await attempt(() => call("POST", "admin/settings/password", { body: { new_password: input.value } }), pressed);
    if (!answer) return;
    renew(answer.token);
    notice(t("settings.passwordChanged"));
  };
  return h("section", { class: "card" }, h("h2", {}, t("settings.password")), h("p", { class: "hint" }, t("settings.passwordText")), h("div", { class: "row" }, h("div", { class: "narrow grow" }, input), button(t("common.save"), change)));
}

/** The control for a kind of value: `node`, and `read`, which throws where the text means nothing. */
function controlOf(bounds, value) {
  const json = () => {
    const node = h("textarea", { rows: 3, class: "mono", spellcheck: "false", value: JSON.stringify(value ?? null) });
    return { node, read: () => JSON.parse(node.value) };
  };
  if (bounds.type === "true or false") {
    const node = h("input", { type: "checkbox", checked: value });
    return { node, read: () => node.checked };
  }
  if (bounds.choices) {
    const none = bounds.nullable ? [["", "–"]] : [];
    const node = choice([...none, ...bounds.choices.map((one) => [String(one), String(one)])], String(value ?? ""));
    return { node, read: () => bounds.choices.find((one) => String(one) === node.value) ?? null };
  }
  if (bounds.type === "integer" || bounds.type === "number") {
    const node = h("input", { type: "number", min: bounds.min, max: bounds.max, step: bounds.type === "integer" ? 1 : "any", value: value ?? "" });
    return { node, read: () => (node.value === "" ? null : Number(node.value)) };
  }
  if (bounds.type === "text") {
    const node = h("input", { value: value ?? "", spellcheck: "false" });
    return { node, read: () => (node.value === "" && bounds.nullable ? null : node.value) };
  }
  return json();
}

const written = (value) => (value === null || value === undefined ? "–" : typeof value === "string" ? value || '""' : JSON.stringify(value));

function valueAt(settings, path) {
  return path.split(".").reduce((value, name) => value?.[name], settings);
}

function bodyOf(changes) {
  const body = {};
  for (const { path, new: value } of changes) {
    const names = path.split(".");
    const last = names.pop();
    let inner = body;
    for (const name of names) inner = inner[name] ??= {};
    inner[last] = value;
  }
  return body;
}

function grouped(bounds) {
  const groups = new Map();
  for (const entry of Object.entries(bounds)) {
    const group = entry[0].split(".")[0];
    groups.set(group, [...(groups.get(group) ?? []), entry]);
  }
  return groups;
}

customElements.define("ds-settings", Settings);
