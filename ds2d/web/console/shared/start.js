// How every page begins: light, language, then its head and its main part, built anew when the language changes.

import { h, put } from "./dom.js";
import { speak, t } from "./i18n.js";
import { light, masthead } from "./ui.js";

/** Show a page. `main` makes its main part; `more` what stands in its head besides. */
export async function start(name, main, more = () => null) {
  light();
  await speak();
  const build = () => {
    document.title = `ds2d · ${t(`head.${name}`)}`;
    const skip = h("a", { class: "skip", href: "#main", on: { click: toMain } }, t("head.skip"));
    put(document.body, skip, masthead(name, build, more()), h("main", { id: "main", tabindex: -1 }, main()));
  };
  build();
}

function toMain(event) {
  event.preventDefault(); // the part after `#` is the view
  document.querySelector("main").focus();
}
