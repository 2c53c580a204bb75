// Connect: the very variables and files that lead each client to this daemon, with this key and this model.

import { ask, BASE } from "../shared/api.js";
import { h, Part, put } from "../shared/dom.js";
import { t } from "../shared/i18n.js";
import { attempt, choice, code, field } from "../shared/ui.js";
import { fresh } from "./keys.js";
import { call, session } from "./session.js";

const PAUSE_MS = 300;

class Connect extends Part {
  async start() {
    const later = { on: { input: () => this.soon() } };
    this.url = h("input", { value: String(BASE).replace(/\/$/, ""), spellcheck: "false", ...later });
    this.key = h("input", { value: fresh.key, placeholder: "sk-…", autocomplete: "off", spellcheck: "false", ...later });
    this.model = choice(["deepseek-chat"], "deepseek-chat", { on: { change: () => this.load() } });
    this.chosen = 0;
    this.place = h("div", { class: "stack" });
    put(
      this,
      h("section", { class: "card" }, h("div", { class: "fields" }, field(t("connect.url"), this.url), field(t("connect.key"), this.key, t("connect.keyHint")), field(t("requests.model"), this.model))),
      h("section", { class: "card" }, this.place),
    );
    await this.load();
    const models = await attempt(() => ask("GET", "v1/models", { credential: session.value, signal: this.signal }).catch(() => ({ data: [] })));
    const known = new Set(["deepseek-chat"]);
    for (const { id } of models?.data ?? []) if (!known.has(id)) this.model.append(h("option", { value: id }, id));
  }

  soon() {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.load(), PAUSE_MS);
  }

  async load() {
    const body = { base_url: this.url.value.trim(), key: this.key.value.trim() || "sk-…", model: this.model.value };
    if (!body.base_url) return;
    const answer = await attempt(() => call("POST", "admin/connect", { body, signal: this.signal }));
    if (answer) this.show(answer.clients);
  }

  show(clients) {
    const pick = (index) => {
      this.chosen = index;
      this.show(clients);
      this.querySelector('[aria-selected="true"]').focus();
    };
    const step = (event) => {
      const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (way) pick((this.chosen + way + clients.length) % clients.length);
    };
    const tab = (one, index) =>
      h("button", { type: "button", role: "tab", id: `client-${index}`, "aria-selected": String(index === this.chosen), "aria-controls": "setup", tabindex: index === this.chosen ? 0 : -1, on: { click: () => pick(index), keydown: step } }, one.title);
    const one = clients[this.chosen];
    put(
      this.place,
      h("div", { class: "tabs", role: "tablist", "aria-label": t("connect.client") }, clients.map(tab)),
      h("div", { class: "stack", role: "tabpanel", id: "setup", "aria-labelledby": `client-${this.chosen}` }, code(one.exports, t("connect.variables")), one.files.map((file) => code(file.text, file.path)), one.run && code(one.run, t("connect.run"))),
    );
  }
}

customElements.define("ds-connect", Connect);
