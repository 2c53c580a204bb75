// Differences of two configs, a line each: what goes in red, what comes in green, both with their signs.

import { h } from "../shared/dom.js";
import { t } from "../shared/i18n.js";
import { empty } from "../shared/ui.js";

const shown = (value) => (value === undefined ? "" : JSON.stringify(value, null, 1));

export function changeList(changes) {
  if (!changes.length) return empty(t("changes.none"));
  const line = ({ path, kind, old, new: fresh }) =>
    h(
      "li",
      {},
      h("code", { class: "path" }, path || "·"),
      kind !== "added" && h("pre", { class: "gone" }, `− ${shown(old ?? null)}`),
      kind !== "removed" && h("pre", { class: "come" }, `+ ${shown(fresh ?? null)}`),
    );
  return h("ul", { class: "changes", "aria-label": t("changes.title") }, changes.map(line));
}
