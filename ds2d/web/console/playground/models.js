// Which models there are and how they are, fresh enough to choose by.

import { ask } from "../shared/api.js";
import { h, Part, put } from "../shared/dom.js";
import { named, t } from "../shared/i18n.js";
import { Store } from "../shared/store.js";
import { key } from "../shared/usekey.js";

export const models = new Store([]);

const MARKS = { ready: "●", degraded: "◐", loading: "○", down: "✕" };

export async function refreshModels() {
  try {
    models.set((await ask("GET", "v1/models", { credential: key.value || undefined })).data);
  } catch {
    // what was known stays shown; a request will say what is wrong
  }
}

/** A choice of model with the live state of each; `value` is the model, "change" tells of a choice. */
class ModelPicker extends Part {
  value = "";

  start() {
    this.select = h("select", { "aria-label": this.getAttribute("label") ?? t("chat.model"), on: { change: () => this.chosen(this.select.value) } });
    put(this, this.select);
    models.watch((found) => this.show(found), this.signal);
  }

  chosen(model) {
    this.value = model;
    this.dispatchEvent(new Event("change"));
  }

  show(found) {
    if (!this.value && found.length) this.value = (found.find((model) => model.state === "ready") ?? found[0]).id;
    const ids = found.map((model) => model.id);
    const all = this.value && !ids.includes(this.value) ? [{ id: this.value, state: "" }, ...found] : found;
    const label = ({ id, state }) => `${MARKS[state] ?? "·"} ${id}${state && state !== "ready" ? ` (${named("state", state)})` : ""}`;
    put(this.select, all.map((model) => h("option", { value: model.id }, label(model))));
    this.select.value = this.value;
  }
}

customElements.define("ds-models", ModelPicker);
