// Accounts: find, add, edit, delete, try one or all, and see why one is put aside.

import { slots } from "../shared/chart.js";
import { h, Part, put } from "../shared/dom.js";
import { moment, named, number, t } from "../shared/i18n.js";
import { events } from "../shared/sse.js";
import { attempt, badge, button, confirmed, field, formDialog, notice, onlyLast, redraw, table } from "../shared/ui.js";
import { live } from "./live.js";
import { KINDS } from "./overview.js";
import { call, stream } from "./session.js";

const SIZE = 20;
const FIELDS = ["email", "mobile", "name", "password", "token", "upstream", "group", "max_inflight", "weight", "remark"];
const NUMBERS = new Set(["max_inflight", "weight"]);

class Accounts extends Part {
  start() {
    this.page = 1;
    this.asked = onlyLast();
    this.results = new Map();
    this.search = h("input", { type: "search", placeholder: t("accounts.search"), "aria-label": t("accounts.search"), on: { input: () => this.searched() } });
    this.list = h("div", {});
    this.progress = h("div", { role: "status" });
    put(
      this,
      h(
        "section",
        { class: "card stack" },
        h(
          "header",
          {},
          h("div", { class: "grow narrow" }, this.search),
          h("div", { class: "row" }, button(t("accounts.testAll"), (pressed) => this.testAll(pressed)), button(t("accounts.add"), () => this.edit(), "primary")),
        ),
        this.progress,
        this.list,
      ),
    );
    this.load();
    live.watch(({ accounts }) => this.items && this.show(accounts), this.signal);
  }

  searched() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => {
      this.page = 1;
      this.load();
    }, 250);
  }

  async load() {
    const query = new URLSearchParams({ page: this.page, page_size: SIZE, q: this.search.value });
    const answer = await this.asked(() => call("GET", `admin/accounts?${query}`, { signal: this.signal }));
    if (!answer) return;
    Object.assign(this, { items: answer.items, total: answer.total, pages: answer.total_pages });
    this.show(live.value.accounts);
  }

  show(states) {
    const now = (one) => ({ ...one, ...states[one.identifier] });
    const tried = (one) => {
      const result = this.results.get(one.identifier);
      if (result) return [badge(result.success ? t("accounts.ok") : t("accounts.failed"), result.success ? "good" : "bad"), h("small", { class: "soft" }, ` ${number(result.response_time)} ms`), !result.success && h("div", { class: "hint" }, result.message)];
      return one.test_status ? badge(one.test_status === "ok" ? t("accounts.ok") : t("accounts.failed"), one.test_status === "ok" ? "good" : "bad") : "–";
    };
    const why = (one) => [
      badge(named("state", one.state), KINDS[one.state] ?? ""),
      one.reason && h("div", {}, named("reason", one.reason)),
      one.put_aside_until && h("div", { class: "hint" }, t("accounts.until", { time: moment(one.put_aside_until) })),
      Object.entries(one.models_aside ?? {}).map(([model, aside]) => h("div", { class: "hint" }, t("accounts.model", { model, state: named("state", aside.state), reason: named("reason", aside.reason), time: moment(aside.until) }))),
      one.last_error && h("div", { class: "hint" }, t("accounts.lastError", { error: one.last_error })),
    ];
    const columns = [
      [t("accounts.name"), (one) => [h("strong", {}, one.name || one.identifier), one.name && one.identifier !== one.name && h("div", { class: "hint" }, one.identifier)]],
      [t("accounts.upstream"), (one) => one.upstream],
      [t("accounts.secret"), (one) => [one.has_password && badge(t("accounts.password")), " ", one.has_token && h("code", {}, one.token_preview)]],
      [t("accounts.state"), why],
      [t("accounts.slots"), (one) => slots(one.inflight ?? 0, one.max_inflight ?? 0, t("accounts.used", { used: one.inflight ?? 0, limit: one.max_inflight ?? 0 }))],
      [t("accounts.test"), tried],
      ["", (one) => this.actions(one), "num"],
    ];
    redraw(this.list, table(columns, this.items.map(now), { caption: t("view.accounts"), none: t("accounts.none"), of: (one) => one.identifier }), this.pager());
  }

  actions(one) {
    return h(
      "div",
      { class: "row" },
      button(t("accounts.test"), (pressed) => this.test(one, pressed), "small"),
      one.put_aside_until || ["open", "cooling", "half_open"].includes(one.state) || Object.keys(one.models_aside ?? {}).length ? button(t("accounts.reset"), (pressed) => this.reset(one, pressed), "small") : null,
      button(t("common.edit"), () => this.edit(one), "small"),
      button(t("common.delete"), () => this.remove(one), "small danger"),
    );
  }

  pager() {
    if (this.pages < 2) return null;
    const go = (step) => () => {
      this.page += step;
      this.load();
    };
    return h(
      "nav",
      { class: "row pager", "aria-label": t("accounts.pages") },
      button("‹", go(-1), "small", { disabled: this.page <= 1, "aria-label": t("accounts.before") }),
      h("span", {}, t("accounts.page", { page: this.page, pages: this.pages, total: this.total })),
      button("›", go(1), "small", { disabled: this.page >= this.pages, "aria-label": t("accounts.after") }),
    );
  }

  async edit(one) {
    const inputs = Object.fromEntries(
      FIELDS.map((name) => {
        const secret = name === "password" || name === "token";
        const kind = secret ? "password" : NUMBERS.has(name) ? "number" : "text";
        const held = one && secret && one[`has_${name}`] ? t("accounts.kept") : "";
        return [name, h("input", { type: kind, autocomplete: "off", step: "any", placeholder: held, value: secret ? "" : (one?.[name] ?? "") })];
      }),
    );
    const disabled = h("input", { type: "checkbox", id: "disabled", checked: one?.disabled ?? false });
    const was = Object.fromEntries(FIELDS.map((name) => [name, inputs[name].value.trim()]));
    const body = () => {
      const given = FIELDS.map((name) => [name, inputs[name].value.trim()]).filter(([name, value]) => value !== was[name]); // not what another may have changed meanwhile
      const made = Object.fromEntries(given.map(([name, value]) => [name, NUMBERS.has(name) && value !== "" ? Number(value) : value]));
      return disabled.checked === (one?.disabled ?? false) ? made : { ...made, disabled: disabled.checked };
    };
    const save = () => (one ? call("PUT", `admin/accounts/${encodeURIComponent(one.identifier)}`, { body: body() }) : call("POST", "admin/accounts", { body: body() }));
    const grid = h("div", { class: "fields" }, FIELDS.map((name) => field(t(`account.${name}`), inputs[name])));
    const title = one ? t("accounts.editTitle", { name: one.identifier }) : t("accounts.add");
    const done = await formDialog(title, [grid, h("label", { class: "check", for: "disabled" }, disabled, t("account.disabled"))], t("common.save"), save);
    if (done) {
      notice(t("common.saved"));
      await this.load();
    }
  }

  async remove(one) {
    if (!(await confirmed(t("accounts.deleteTitle"), t("accounts.deleteText", { name: one.identifier }), t("common.delete")))) return;
    await attempt(() => call("DELETE", `admin/accounts/${encodeURIComponent(one.identifier)}`));
    await this.load();
  }

  async reset(one, pressed) {
    const done = await attempt(() => call("POST", `admin/accounts/${encodeURIComponent(one.identifier)}/reset`), pressed);
    if (done) notice(t("accounts.wasReset", { name: one.identifier }));
    await this.load();
  }

  async test(one, pressed) {
    const result = await attempt(() => call("POST", "admin/accounts/test", { body: { identifier: one.identifier } }), pressed);
    if (!result) return;
    this.results.set(one.identifier, result);
    this.show(live.value.accounts);
    notice(`${one.identifier}: ${result.message}`, result.success ? "good" : "bad");
  }

  /** Try all, and show each result as it comes. */
  async testAll(pressed) {
    const total = this.total;
    let seen = 0;
    let good = 0;
    const bar = h("progress", { max: total, value: 0, "aria-label": t("accounts.testAll") });
    const words = h("span", {});
    put(this.progress, h("div", { class: "row" }, bar, words));
    await attempt(async () => {
      const response = await stream("POST", "admin/accounts/test-all", { body: {}, headers: { Accept: "text/event-stream" }, signal: this.signal });
      for await (const { data } of events(response)) {
        const result = JSON.parse(data);
        if (!result.account) continue;
        seen += 1;
        good += result.success ? 1 : 0;
        this.results.set(result.account, result);
        bar.value = seen;
        words.textContent = t("accounts.progress", { seen, total, good });
        this.show(live.value.accounts);
      }
    }, pressed);
  }
}

customElements.define("ds-accounts", Accounts);
