// The visitor's API key: asked for once, kept in the tab.

import { ask, Failure } from "./api.js";
import { h } from "./dom.js";
import { t } from "./i18n.js";
import { tab } from "./keep.js";
import { Store } from "./store.js";
import { field, problem } from "./ui.js";

export const key = new Store(tab.get("ds2d.key") ?? "");

export function useKey(value) {
  tab.set("ds2d.key", value || null);
  key.set(value);
}

/** The form that asks for it. `done` hears what the key's use is. */
export function keyForm(done = () => {}) {
  const input = h("input", { type: "password", autocomplete: "off", required: true, placeholder: "sk-…", spellcheck: "false" });
  const wrong = h("p", { class: "wrong", role: "alert" });
  const go = h("button", { class: "button primary" }, t("key.use"));
  const act = async (event) => {
    event.preventDefault();
    go.disabled = true;
    wrong.textContent = "";
    try {
      const usage = await ask("GET", "v1/usage", { credential: input.value.trim() });
      useKey(input.value.trim());
      done(usage);
    } catch (error) {
      wrong.textContent = error instanceof Failure && error.status === 401 ? t("key.wrong") : problem(error);
    } finally {
      go.disabled = false;
    }
  };
  return h(
    "form",
    { class: "card stack keyform", on: { submit: act } },
    h("h2", {}, t("key.title")),
    h("p", { class: "soft" }, t("key.text")),
    h("div", { class: "row" }, h("div", { class: "grow" }, field(t("key.label"), input)), go),
    wrong,
  );
}
