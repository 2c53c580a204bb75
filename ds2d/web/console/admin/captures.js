// Captures: whole exchanges that were kept for looking at faults.

import { h, Part, put } from "../shared/dom.js";
import { moment, number, t } from "../shared/i18n.js";
import { attempt, badge, button, code, confirmed, dialog, download, notice, table } from "../shared/ui.js";
import { call } from "./session.js";

/** What was kept of a request, drawn; null where nothing was. */
export async function captureOf(requestId) {
  const { items } = await call("GET", "admin/dev/captures");
  const found = items.find((one) => one.request_id === requestId);
  return found ? drawn(found) : null;
}

class Captures extends Part {
  start() {
    this.load();
  }

  async load() {
    const answer = await attempt(() => call("GET", "admin/dev/captures", { signal: this.signal }));
    if (answer) this.show(answer);
  }

  show({ enabled, limit, max_body_bytes: bytes, items }) {
    const columns = [
      [t("captures.at"), (one) => moment(one.created_at)],
      [t("captures.label"), (one) => button(one.label, () => dialog(one.id, () => drawn(one), { wide: true }), "link")],
      [t("requests.id"), (one) => h("code", {}, one.request_id)],
      [t("requests.account"), (one) => one.account_id],
      [t("captures.status"), (one) => (one.error ? badge(one.error, "bad") : badge(String(one.status_code), one.status_code < 400 ? "good" : "bad"))],
      [t("captures.url"), (one) => one.url],
    ];
    put(
      this,
      h(
        "section",
        { class: "card stack" },
        h(
          "header",
          {},
          h("p", { class: "soft" }, enabled ? t("captures.on", { limit: number(limit), bytes: number(bytes) }) : t("captures.off")),
          h("div", { class: "row" }, button(enabled ? t("captures.stop") : t("captures.begin"), (pressed) => this.turn(!enabled, pressed)), button(t("captures.clear"), () => this.clear(), "danger", { disabled: !items.length })),
        ),
        table(columns, items, { caption: t("view.captures"), none: t("captures.none") }),
      ),
    );
  }

  async turn(enabled, pressed) {
    await attempt(() => call("PUT", "admin/settings", { body: { capture: { enabled } } }), pressed);
    await this.load();
  }

  async clear() {
    if (!(await confirmed(t("captures.clear"), t("captures.clearText"), t("captures.clear")))) return;
    const answer = await attempt(() => call("DELETE", "admin/dev/captures"));
    if (answer) notice(t("captures.cleared"));
    await this.load();
  }
}

function drawn(one) {
  const part = (title, text) => text && code(pretty(text), title);
  return h(
    "div",
    { class: "stack" },
    part(t("captures.asked"), one.request_body),
    part(t("captures.upstreamAsked"), one.upstream_request),
    part(one.response_truncated ? t("captures.cut") : t("captures.answered"), one.response_body),
    part(t("captures.client"), one.client_body),
    h("div", {}, button(t("captures.save"), () => download(`${one.id}.json`, JSON.stringify(one, null, 1), "application/json"), "small")),
  );
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

customElements.define("ds-captures", Captures);
