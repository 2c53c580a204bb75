// Usage: what was used, by key, by model, by day; turns that broke off; and all of it as a file.

import { bars, lines } from "../shared/chart.js";
import { h, Part, put } from "../shared/dom.js";
import { duration, moment, named, number, short, t } from "../shared/i18n.js";
import { attempt, badge, button, choice, download, field, onlyLast, table } from "../shared/ui.js";
import { call } from "./session.js";

const DAY = 86400000;
const PAGE = 500;
const MOST = 20;
const STATES = ["interrupted", "failed", "rejected", "completed", "open"];

class Usage extends Part {
  start() {
    this.asked = onlyLast();
    this.askedTurns = onlyLast();
    const change = { on: { change: () => this.load() } };
    this.days = choice(["1", "7", "30", "90"].map((days) => [days, t("usage.days", { days })]), "7", change);
    this.key = choice([["", t("usage.allKeys")]], "", change);
    this.state = choice(STATES.map((state) => [state, named("end", state)]), "interrupted", { on: { change: () => this.loadTurns() } });
    this.sums = h("div", { class: "stack" });
    this.turns = h("div", {});
    put(
      this,
      h(
        "section",
        { class: "card row" },
        field(t("usage.period"), this.days),
        field(t("usage.key"), this.key),
        h("div", { class: "row grow end" }, button(t("usage.csv"), (pressed) => this.save("csv", pressed)), button(t("usage.json"), (pressed) => this.save("json", pressed))),
      ),
      this.sums,
      h("section", { class: "card" }, h("header", {}, h("h2", {}, t("usage.turns")), field(t("requests.end"), this.state)), this.turns),
    );
    this.fillKeys();
    this.load();
  }

  async fillKeys() {
    const answer = await attempt(() => call("GET", "admin/keys?deleted=1", { signal: this.signal }));
    for (const one of answer?.keys ?? []) if (one.id) this.key.append(h("option", { value: one.id }, one.name ?? one.key));
  }

  query(more) {
    const since = new Date(Date.now() - Number(this.days.value) * DAY).toISOString();
    return new URLSearchParams({ since, ...(this.key.value ? { key: this.key.value } : {}), ...more });
  }

  async load() {
    const answer = await this.asked(() => call("GET", `admin/usage?${this.query({ limit: 1 })}`, { signal: this.signal }));
    if (answer) this.show(answer.daily);
    await this.loadTurns();
  }

  async loadTurns() {
    const answer = await this.askedTurns(() => call("GET", `admin/usage?${this.query({ state: this.state.value, limit: PAGE })}`, { signal: this.signal }));
    if (answer) this.showTurns(answer.turns.reverse().slice(0, 100));
  }

  show(daily) {
    const tokens = (row) => row.prompt_tokens + row.completion_tokens;
    const by = (name) => {
      const sums = new Map();
      for (const row of daily) sums.set(row[name] || "–", (sums.get(row[name] || "–") ?? 0) + tokens(row));
      return [...sums].sort((a, b) => b[1] - a[1]).slice(0, MOST).map(([word, amount]) => [word, amount, short(amount)]);
    };
    const days = datesOf(Number(this.days.value));
    const of = (name) => days.map((day) => daily.filter((row) => row.day === day).reduce((sum, row) => sum + row[name], 0));
    const columns = [
      [t("usage.day"), (row) => moment(`${row.day}T12:00:00Z`, "day")],
      [t("usage.key"), (row) => row.key_name || row.key],
      [t("requests.model"), (row) => row.used],
      [t("usage.state"), (row) => badge(named("end", row.state), row.state === "completed" ? "good" : "warn")],
      [t("usage.requests"), (row) => number(row.requests), "num"],
      [t("usage.prompt"), (row) => number(row.prompt_tokens), "num"],
      [t("usage.completion"), (row) => number(row.completion_tokens), "num"],
      [t("usage.cached"), (row) => number(row.cached_tokens), "num"],
    ];
    put(
      this.sums,
      h(
        "section",
        { class: "card charts" },
        lines({
          title: t("usage.tokens"),
          at: days.map((day) => moment(`${day}T12:00:00Z`, "day")),
          series: [
            { label: t("usage.prompt"), values: of("prompt_tokens"), kind: "first" },
            { label: t("usage.completion"), values: of("completion_tokens"), kind: "second" },
          ],
          format: short,
        }),
        lines({ title: t("usage.requests"), at: days.map((day) => moment(`${day}T12:00:00Z`, "day")), series: [{ values: of("requests"), kind: "first" }], format: short, area: true }),
      ),
      h(
        "div",
        { class: "two" },
        h("section", { class: "card" }, h("h2", {}, t("usage.byKey")), bars(t("usage.byKey"), by("key_name"))),
        h("section", { class: "card" }, h("h2", {}, t("usage.byModel")), bars(t("usage.byModel"), by("used"))),
      ),
      h("section", { class: "card" }, h("h2", {}, t("usage.daily")), table(columns, [...daily].reverse().slice(0, 200), { caption: t("usage.daily"), none: t("usage.none") })),
    );
  }

  showTurns(turns) {
    const columns = [
      [t("requests.began"), (one) => moment(one.began_at)],
      [t("requests.id"), (one) => h("code", {}, one.request_id)],
      [t("usage.key"), (one) => one.key_name],
      [t("requests.model"), (one) => one.used || one.asked],
      [t("requests.cause"), (one) => one.cause || "–"],
      [t("usage.prompt"), (one) => number(one.prompt_tokens), "num"],
      [t("usage.delivered"), (one) => number(one.delivered_tokens), "num"],
      [t("requests.took"), (one) => duration(one.total_ms), "num"],
    ];
    put(this.turns, table(columns, turns, { caption: t("usage.turns"), none: t("usage.none") }));
  }

  /** Every turn of the period, page by page, as a file. */
  async save(kind, pressed) {
    const rows = await attempt(async () => {
      const found = [];
      let after = null;
      do {
        const answer = await call("GET", `admin/usage?${this.query({ limit: PAGE, ...(after ? { after } : {}) })}`, { signal: this.signal });
        found.push(...answer.turns);
        after = answer.next;
      } while (after);
      return found;
    }, pressed);
    if (!rows) return;
    const name = `ds2d-usage-${new Date().toISOString().slice(0, 10)}.${kind}`;
    if (kind === "json") download(name, JSON.stringify(rows, null, 1), "application/json");
    else download(name, csv(rows), "text/csv");
  }
}

function datesOf(days) {
  return Array.from({ length: Math.max(2, days) }, (_, index) => new Date(Date.now() - (Math.max(2, days) - 1 - index) * DAY).toISOString().slice(0, 10));
}

/** Rows as a table for a spreadsheet, in which no cell can be taken for a formula. */
function csv(rows) {
  const names = Object.keys(rows[0] ?? { request_id: "" });
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((line) => line.map(cell).join(",")).join("\r\n");
}

customElements.define("ds-usage", Usage);
