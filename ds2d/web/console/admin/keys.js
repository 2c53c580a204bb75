// Keys: make one (shown once), limit it, see what it has used, revoke it and bring it back.

import { h, Part, put } from "../shared/dom.js";
import { moment, named, number, short, t } from "../shared/i18n.js";
import { attempt, badge, button, choice, code, confirmed, dialog, field, formDialog, notice, onlyLast, redraw, table } from "../shared/ui.js";
import { call } from "./session.js";

const LIMITS = ["max_tokens", "max_prompt_tokens", "max_completion_tokens", "rpm", "tpm", "max_inflight", "active_days"];
const FLAGS = ["admin", "priority", "disabled"];

/** The key that was made last, for Connect; never stored. */
export const fresh = { key: "" };

class Keys extends Part {
  start() {
    this.asked = onlyLast();
    this.gone = h("input", { type: "checkbox", id: "gone", on: { change: () => this.load() } });
    this.list = h("div", {});
    put(
      this,
      h(
        "section",
        { class: "card stack" },
        h("header", {}, h("label", { class: "check", for: "gone" }, this.gone, t("keys.showDeleted")), button(t("keys.make"), () => this.edit(), "primary")),
        this.list,
      ),
    );
    this.load();
    this.every(10000, () => this.load());
  }

  async load() {
    const answer = await this.asked(() => call("GET", `admin/keys${this.gone.checked ? "?deleted=1" : ""}`, { signal: this.signal }));
    if (answer) this.show(answer.keys);
  }

  show(keys) {
    const quota = (one) =>
      h("div", { class: "quota" }, h("span", { class: "hint" }, `${named("quota", one.kind)}: ${short(one.used)} / ${short(one.limit)}`), h("meter", { max: one.limit, value: one.used, high: one.limit * 0.9, "aria-label": named("quota", one.kind) }));
    const total = (used) => used.prompt_tokens + used.completion_tokens;
    const state = (one) => {
      if (one.deleted_at) return badge(t("keys.deleted"), "bad");
      if (one.problem) return badge(one.problem, "bad");
      if (one.disabled) return badge(t("state.disabled"));
      if (one.expires_at && new Date(one.expires_at) < new Date()) return badge(t("keys.expired"), "warn");
      return badge(t("keys.active"), "good");
    };
    const columns = [
      [t("keys.name"), (one) => [h("strong", {}, one.name ?? "–"), h("div", {}, h("code", {}, one.key)), one.remark && h("div", { class: "hint" }, one.remark)]],
      [t("keys.state"), (one) => [state(one), one.admin && [" ", badge("admin", "accent")], one.expires_at && h("div", { class: "hint" }, t("keys.until", { time: moment(one.expires_at) }))]],
      [t("keys.quota"), (one) => (one.quotas.length ? one.quotas.map(quota) : h("span", { class: "soft" }, t("keys.unlimited")))],
      [t("window.day"), (one) => short(total(one.used.day)), "num"],
      [t("window.month"), (one) => short(total(one.used.month)), "num"],
      [t("window.total"), (one) => short(total(one.used.total)), "num"],
      [t("keys.running"), (one) => number(one.running), "num"],
      [t("keys.last"), (one) => moment(one.last_used_at)],
      ["", (one) => this.actions(one), "num"],
    ];
    redraw(this.list, table(columns, keys, { caption: t("view.keys"), none: t("keys.none"), of: (one) => one.id ?? one.key }));
  }

  actions(one) {
    if (one.deleted_at) return button(t("keys.restore"), (pressed) => this.restore(one, pressed), "small");
    return h("div", { class: "row" }, button(t("common.edit"), () => this.edit(one), "small"), button(t("keys.revoke"), () => this.revoke(one), "small danger"));
  }

  async edit(one) {
    const text = (name) => h("input", { value: one?.[name] ?? "", autocomplete: "off" });
    const inputs = { name: text("name"), remark: text("remark"), models: h("input", { value: (one?.models ?? []).join(", "), autocomplete: "off", placeholder: "deepseek-*" }) };
    for (const name of LIMITS) inputs[name] = h("input", { type: "number", min: 0, value: one?.[name] ?? "" });
    inputs.expires_at = h("input", { type: "datetime-local", value: one?.expires_at ? local(one.expires_at) : "" });
    inputs.quota_window = choice(["total", "day", "month"].map((name) => [name, t(`window.${name}`)]), one?.quota_window ?? "total");
    const flags = Object.fromEntries(FLAGS.map((name) => [name, h("input", { type: "checkbox", id: `flag-${name}`, checked: one?.[name] ?? false })]));
    const save = async () => {
      const body = bodyOf(inputs, flags, one);
      return one ? call("PUT", pathOf(one), { body }) : call("POST", "admin/keys", { body });
    };
    const fields = [
      h("div", { class: "fields" }, ["name", "remark", "models", "quota_window", ...LIMITS, "expires_at"].map((name) => field(t(`keyfield.${name}`), inputs[name]))),
      FLAGS.map((name) => h("label", { class: "check", for: `flag-${name}` }, flags[name], t(`keyfield.${name}`))),
    ];
    const done = await formDialog(one ? t("keys.editTitle", { name: one.name ?? one.key }) : t("keys.make"), fields, t("common.save"), save);
    if (!done) return;
    await this.load();
    if (done.key) await this.showOnce(done.key);
    else notice(t("common.saved"));
  }

  async showOnce(key) {
    fresh.key = key;
    const go = (close) => () => {
      close();
      location.hash = "connect";
    };
    await dialog(t("keys.madeTitle"), (close) => [h("p", {}, t("keys.madeText")), code(key), h("footer", {}, button(t("view.connect"), go(close)), button(t("common.close"), () => close(), "primary"))]);
  }

  async revoke(one) {
    if (!(await confirmed(t("keys.revokeTitle"), t("keys.revokeText", { name: one.name ?? one.key }), t("keys.revoke")))) return;
    await attempt(() => call("DELETE", pathOf(one)));
    await this.load();
  }

  async restore(one, pressed) {
    await attempt(() => call("PUT", pathOf(one), { body: {} }), pressed);
    await this.load();
  }
}

/** Where a key is edited; one that cannot be read has no id and is found by its reference. */
const pathOf = (one) => `admin/keys/${encodeURIComponent(one.id ?? one.key)}`;

/** What the form says, of what differs from the key as it is. */
function bodyOf(inputs, flags, one) {
  const found = {};
  for (const [name, input] of Object.entries(inputs)) {
    const value = input.value.trim();
    if (name === "models") found.models = value ? value.split(",").map((part) => part.trim()).filter(Boolean) : null;
    else if (LIMITS.includes(name)) found[name] = value === "" ? null : Number(value);
    else if (name === "expires_at") found.expires_at = value ? new Date(value).toISOString() : null;
    else found[name] = value === "" && name === "name" ? null : value;
  }
  for (const [name, input] of Object.entries(flags)) found[name] = input.checked;
  const before = (name) => one?.[name] ?? { quota_window: "total", remark: "", admin: false, priority: false, disabled: false }[name] ?? null;
  const same = (name, value) => (name === "expires_at" && value && before(name) ? local(value) === local(before(name)) : JSON.stringify(value) === JSON.stringify(before(name)));
  return Object.fromEntries(Object.entries(found).filter(([name, value]) => !same(name, value)));
}

/** A time as the browser's field for it wants it, to the minute. */
function local(when) {
  const date = new Date(when);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

customElements.define("ds-keys", Keys);
