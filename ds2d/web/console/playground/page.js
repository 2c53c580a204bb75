// The playground: try a model in the browser as any client would, with the visitor's own key.

import "./chat.js";
import "./completion.js";
import "./stats.js";
import { h, Part, put } from "../shared/dom.js";
import { t } from "../shared/i18n.js";
import { start } from "../shared/start.js";
import { button } from "../shared/ui.js";
import { key, keyForm, useKey } from "../shared/usekey.js";
import { refreshModels } from "./models.js";

const MODES = ["chat", "completion", "stats"];

class Playground extends Part {
  start() {
    this.mode = MODES.find((mode) => `#${mode}` === location.hash) ?? "chat";
    this.every(15000, refreshModels);
    key.watch(() => this.show(), this.signal);
    addEventListener("hashchange", () => this.pick(location.hash.slice(1)), { signal: this.signal });
  }

  pick(mode) {
    if (!MODES.includes(mode) || mode === this.mode) return;
    this.mode = mode;
    this.show();
    this.querySelector('[aria-selected="true"]')?.focus();
  }

  show() {
    refreshModels();
    const tabs = MODES.map((mode) =>
      h(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${mode}`,
          "aria-selected": String(mode === this.mode),
          "aria-controls": "mode",
          tabindex: mode === this.mode ? 0 : -1,
          on: { click: () => (location.hash = mode), keydown: (event) => this.step(event) },
        },
        t(`mode.${mode}`),
      ),
    );
    const forget = key.value ? button(t("key.forget"), () => useKey(""), "small quiet") : null;
    put(
      this,
      h("h1", { class: "unseen" }, t("head.playground")),
      h("div", { class: "row between" }, h("div", { class: "tabs", role: "tablist", "aria-label": t("mode.label") }, tabs), forget),
      key.value ? null : keyForm(),
      h("section", { id: "mode", role: "tabpanel", "aria-labelledby": `tab-${this.mode}` }, h(`ds-${this.mode}`)),
    );
  }

  step(event) {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (way) location.hash = MODES[(MODES.indexOf(this.mode) + way + MODES.length) % MODES.length];
  }
}

customElements.define("ds-playground", Playground);
start("playground", () => h("ds-playground"));
