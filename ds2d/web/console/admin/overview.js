// Overview: what runs now, how the last hour and day went, and how the servers are.

import { bars, lines, slots } from "../shared/chart.js";
import { h, Part, put } from "../shared/dom.js";
import { duration, moment, named, number, short, t } from "../shared/i18n.js";
import { attempt, badge, button, confirmed, empty, redraw, table } from "../shared/ui.js";
import { live } from "./live.js";
import { call } from "./session.js";

export const KINDS = { ready: "good", busy: "accent", degraded: "warn", loading: "warn", cooling: "warn", half_open: "warn", open: "bad", down: "bad" };

class Overview extends Part {
  start() {
    this.range = "hour";
    this.places = Object.fromEntries(["tiles", "charts", "turns", "accounts", "upstreams", "causes"].map((name) => [name, h("div", { class: name })]));
    const { tiles, charts, turns, accounts, upstreams, causes } = this.places;
    const tab = (range) => h("button", { type: "button", role: "tab", "aria-selected": String(range === this.range), on: { click: (event) => this.pick(range, event.target) } }, t(`range.${range}`));
    put(
      this,
      tiles,
      h("section", { class: "card" }, h("header", {}, h("h2", {}, t("overview.flow")), h("div", { class: "tabs", role: "tablist", "aria-label": t("range.label") }, tab("hour"), tab("day"))), charts),
      h("section", { class: "card" }, h("h2", {}, t("overview.turns")), turns),
      h(
        "div",
        { class: "two" },
        h("section", { class: "card" }, h("h2", {}, t("overview.accounts")), accounts),
        h("section", { class: "card" }, h("h2", {}, t("overview.upstreams")), upstreams),
      ),
      h("section", { class: "card" }, h("h2", {}, t("overview.causes")), causes),
    );
    this.load();
    live.watch((state) => this.show(state), this.signal);
    this.every(1000, () => this.age());
    this.every(60000, () => this.load());
  }

  async load() {
    this.series = (await attempt(() => call("GET", "admin/series", { signal: this.signal }))) ?? this.series;
    this.draw();
  }

  pick(range, pressed) {
    this.range = range;
    for (const one of pressed.parentNode.children) one.setAttribute("aria-selected", String(one === pressed));
    this.draw();
  }

  /** Draw those topics that are others than the last time. */
  show(state) {
    const fresh = (topic) => state[topic] !== this.seen?.[topic];
    const { queue, accounts, requests, upstreams } = state;
    if (fresh("queue")) this.tiles(queue);
    if (fresh("requests")) this.turns(Object.values(requests));
    if (fresh("accounts")) redraw(this.places.accounts, accountList(Object.values(accounts)));
    if (fresh("upstreams")) put(this.places.upstreams, Object.keys(upstreams).length ? Object.entries(upstreams).map(([name, one]) => upstream(name, one)) : empty(t("overview.noUpstreams")));
    if (fresh("series") && this.take(state.series)) this.draw();
    this.seen = { ...state };
  }

  /** Put the latest steps in their places; whether anything is new. */
  take(latest) {
    if (!this.series) return false;
    let fresh = false;
    for (const [range, step] of Object.entries(latest)) {
      const { steps } = this.series[range];
      const known = steps.findIndex((one) => one.at === step.at);
      if (known >= 0 && JSON.stringify(steps[known]) === JSON.stringify(step)) continue;
      fresh = true;
      if (known >= 0) steps[known] = step;
      else if (step.at > steps.at(-1).at) this.series[range].steps = [...steps.slice(1), step];
    }
    return fresh;
  }

  tiles(queue) {
    const tile = (title, value, of) => h("div", { class: "tile" }, h("span", { class: "soft" }, title), h("strong", {}, value), h("small", { class: "soft" }, of));
    put(
      this.places.tiles,
      tile(t("overview.running"), number(queue.running), t("overview.of", { most: number(queue.global_max_inflight) })),
      tile(t("overview.waiting"), number(queue.waiting), t("overview.of", { most: number(queue.max_queue_size) })),
      tile(t("overview.free"), number(queue.available), t("overview.of", { most: number(queue.total) })),
      this.lately((steps) => [t("overview.tokens"), short(sum(steps, "completion_tokens")), t("overview.lastHour")], tile),
      this.lately((steps) => [t("overview.first"), duration(median(steps, "first_ms")), t("overview.half")], tile),
      this.lately((steps) => [t("overview.errors"), number(sum(steps, "errors")), t("overview.ofTurns", { turns: number(sum(steps, "turns")) })], tile),
    );
  }

  lately(figures, tile) {
    return this.series ? tile(...figures(this.series.hour.steps)) : null;
  }

  turns(turns) {
    const cancel = async (turn, pressed) => {
      if (await confirmed(t("overview.cancelTitle"), t("overview.cancelText", { id: turn.request_id }), t("overview.cancel")))
        await attempt(() => call("DELETE", `admin/requests/${encodeURIComponent(turn.request_id)}`), pressed);
    };
    const columns = [
      [t("requests.id"), (turn) => h("code", {}, turn.request_id)],
      [t("requests.key"), (turn) => turn.key],
      [t("requests.model"), (turn) => turn.used],
      [t("requests.account"), (turn) => turn.account ?? badge(t("overview.queued"), "warn")],
      [t("requests.state"), (turn) => (turn.answering ? badge(t("overview.answering"), "accent") : badge(t("overview.asked")))],
      [t("overview.age"), (turn) => h("span", { "data-since": turn.created }, since(turn.created)), "num"],
      ["", (turn) => button(t("overview.cancel"), (pressed) => cancel(turn, pressed), "small danger"), "num"],
    ];
    redraw(this.places.turns, table(columns, turns, { caption: t("overview.turns"), none: t("overview.quiet"), of: (turn) => turn.request_id }));
  }

  age() {
    for (const place of this.querySelectorAll("[data-since]")) place.textContent = since(Number(place.dataset.since));
  }

  draw() {
    if (!this.series) return;
    const { step_seconds: width, steps, causes } = this.series[this.range];
    const at = steps.map((step) => moment(step.at, "clock"));
    const elapsed = (step) => (step === steps.at(-1) ? Math.max(5, Math.min(width, Date.now() / 1000 - step.at)) : width);
    const of = (name, quantile) => steps.map((step) => step[name]?.[quantile] ?? null);
    const pair = (name) => [
      { label: t("overview.p50"), values: of(name, "p50"), kind: "first" },
      { label: t("overview.p95"), values: of(name, "p95"), kind: "second" },
    ];
    put(
      this.places.charts,
      lines({ title: t("overview.rate"), at, series: [{ values: steps.map((step) => step.completion_tokens / elapsed(step)), kind: "first" }], format: (value) => number(value, value < 10 ? 1 : 0), area: true }),
      lines({ title: t("overview.first"), at, series: pair("first_ms"), format: duration }),
      lines({ title: t("overview.between"), at, series: pair("between_ms"), format: duration }),
      lines({
        title: t("overview.ended"),
        at,
        series: [
          { label: t("overview.all"), values: steps.map((step) => step.turns), kind: "first" },
          { label: t("overview.failed"), values: steps.map((step) => step.errors), kind: "bad" },
        ],
        format: (value) => number(value, 1),
      }),
    );
    const rows = Object.entries(causes).sort((a, b) => b[1] - a[1]);
    put(this.places.causes, rows.length ? bars(t("overview.causes"), rows) : empty(t("overview.noErrors")));
    this.tiles(live.value.queue);
  }
}

function since(created) {
  return duration(Math.max(0, Math.round(Date.now() / 1000 - created)) * 1000);
}

function accountList(accounts) {
  const columns = [
    [t("accounts.name"), (one) => h("span", {}, one.name)],
    [t("accounts.state"), (one) => [badge(named("state", one.state), KINDS[one.state] ?? ""), one.reason && ` ${named("reason", one.reason)}`]],
    [t("accounts.slots"), (one) => slots(one.inflight, one.max_inflight, t("accounts.used", { used: one.inflight, limit: one.max_inflight }))],
  ];
  return table(columns, accounts.slice(0, 100), { caption: t("overview.accounts"), none: t("stats.none") });
}

/** A server and all that speaks for its state. */
function upstream(name, { state, why, models = [], flavour, kind, ...evidence }) {
  const facts = Object.entries(evidence).flatMap(([fact, value]) => (value !== null && typeof value === "object" ? Object.entries(value) : [[fact, value]]));
  const said = (value) => (typeof value === "number" ? number(value, 2) : String(value));
  return h(
    "article",
    { class: "upstream" },
    h("div", { class: "row between" }, h("strong", {}, name), badge(named("state", state), KINDS[state] ?? "")),
    why && h("p", { class: "soft" }, why),
    h("p", { class: "soft" }, `${kind === "demo" ? kind : flavour} · ${t("overview.models", { count: models.length })}`),
    h("dl", { class: "facts small" }, facts.filter(([, value]) => value !== null && value !== undefined).map(([fact, value]) => [h("dt", {}, named("fact", fact)), h("dd", {}, said(value))])),
  );
}

const sum = (steps, name) => steps.reduce((total, step) => total + step[name], 0);

/** The median step of the hour, for one number. */
function median(steps, name) {
  const values = steps.map((step) => step[name]?.p50).filter((value) => value !== undefined).sort((a, b) => a - b);
  return values.length ? values[Math.floor(values.length / 2)] : null;
}

customElements.define("ds-overview", Overview);
