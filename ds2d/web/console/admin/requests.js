// Requests: the last turns, each with the decisions on its way, its clocks, and its capture where there is one.

import { waterfall } from "../shared/chart.js";
import { h, Part, put } from "../shared/dom.js";
import { duration, moment, named, number, t } from "../shared/i18n.js";
import { attempt, badge, button, dialog, redraw, table } from "../shared/ui.js";
import { captureOf } from "./captures.js";
import { live } from "./live.js";
import { call } from "./session.js";

const KINDS = { completed: "good", interrupted: "warn", failed: "bad", rejected: "bad" };

class Requests extends Part {
  start() {
    this.find = h("input", { type: "search", placeholder: t("requests.search"), "aria-label": t("requests.search"), on: { input: () => this.show() } });
    this.list = h("div", {});
    this.ended = [];
    put(this, h("section", { class: "card stack" }, h("header", {}, h("div", { class: "grow narrow" }, this.find), button(t("common.again"), (pressed) => this.load(pressed))), this.list));
    this.load();
    let turns = live.value.requests;
    live.watch(({ requests }) => {
      if (requests !== turns) this.soon(); // one ended, perhaps
      turns = requests;
    }, this.signal);
  }

  /** Look again, but not more often than every five seconds. */
  soon() {
    this.waiting ||= setTimeout(() => {
      this.waiting = 0;
      if (this.isConnected) this.load();
    }, 5000);
  }

  async load(pressed) {
    const answer = await attempt(() => call("GET", "admin/requests", { signal: this.signal }), pressed);
    if (!answer) return;
    this.ended = answer.ended;
    this.show();
    const about = this.getAttribute("about");
    if (about) {
      this.removeAttribute("about");
      await this.open(about);
    }
  }

  show() {
    const wanted = this.find.value.toLowerCase();
    const rows = this.ended.filter((one) => JSON.stringify([one.request_id, one.key, one.model, one.cause, one.state]).toLowerCase().includes(wanted));
    const columns = [
      [t("requests.began"), (one) => moment(one.began_at)],
      [t("requests.id"), (one) => button(one.request_id, () => this.open(one.request_id), "link mono")],
      [t("requests.key"), (one) => one.key],
      [t("requests.model"), (one) => one.model.used || one.model.asked],
      [t("requests.end"), (one) => [badge(named("end", one.state), KINDS[one.state] ?? ""), one.cause && one.state !== "completed" && h("div", { class: "hint" }, one.cause)]],
      [t("requests.tokens"), (one) => `${number(one.tokens.prompt)} + ${number(one.tokens.completion)}`, "num"],
      [t("requests.first"), (one) => duration(one.clocks.first_ms), "num"],
      [t("requests.took"), (one) => duration(one.clocks.total_ms), "num"],
    ];
    redraw(this.list, table(columns, rows, { caption: t("view.requests"), none: t("requests.none"), of: (one) => one.request_id }));
  }

  async open(id) {
    const one = await attempt(() => call("GET", `admin/requests/${encodeURIComponent(id)}`));
    if (!one?.clocks) return;
    const capture = await attempt(() => captureOf(id));
    await dialog(t("requests.title", { id }), () => detail(one, capture), { wide: true });
  }
}

function detail(one, capture) {
  const { queue_ms: queued, first_ms: first, total_ms: total } = one.clocks;
  return h(
    "div",
    { class: "stack" },
    h(
      "dl",
      { class: "facts" },
      facts([
        [t("requests.key"), one.key],
        [t("requests.dialect"), one.dialect],
        [t("requests.model"), `${one.model.asked} → ${one.model.used} (${one.model.why})`],
        [t("requests.end"), [named("end", one.state), one.cause].filter(Boolean).join(": ")],
        [t("requests.position"), one.position ? number(one.position) : ""],
        [t("requests.tokens"), t("requests.counts", { prompt: number(one.tokens.prompt), completion: number(one.tokens.completion), delivered: number(one.tokens.delivered), source: one.tokens.source || "–" })],
        [t("requests.notes"), one.notes.join("; ")],
      ]),
    ),
    h("h3", {}, t("requests.clocks")),
    waterfall(t("requests.clocks"), stretches(one, queued ?? 0, first, total), total),
    one.tries.some((attempt) => attempt.skipped.length) && [h("h3", {}, t("requests.skipped")), one.tries.map(skipped)],
    capture ? [h("h3", {}, t("requests.capture")), capture] : h("p", { class: "hint" }, t("requests.noCapture")),
  );
}

const facts = (lines) => lines.filter(([, value]) => value !== "" && value != null).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);

/** Where the time went: the queue, each attempt, and within the last the wait for the first piece and the answer. */
function stretches(one, queued, first, total) {
  const rows = [{ name: t("requests.queue"), kind: "wait", begin: 0, end: queued, text: duration(queued) }];
  let at = 0;
  one.tries.forEach((attempt, index) => {
    const begin = at + attempt.waited_ms;
    at = begin + (attempt.ms ?? 0);
    const good = attempt.end === "answered";
    rows.push({ name: `${t("requests.try", { number: index + 1 })} ${attempt.account || attempt.upstream}`, kind: good ? "work" : "bad", begin, end: Math.min(at, total), text: `${attempt.end || "–"} · ${duration(attempt.ms)}` });
  });
  if (first != null) {
    rows.push({ name: t("requests.toFirst"), kind: "first", begin: queued, end: first, text: duration(first - queued) });
    rows.push({ name: t("requests.answer"), kind: "answer", begin: first, end: total, text: duration(total - first) });
  }
  rows.push({ name: t("requests.all"), kind: "all", begin: 0, end: total, text: duration(total) });
  return rows;
}

function skipped(attempt) {
  return h("ul", {}, attempt.skipped.map((one) => h("li", {}, `${one.account}: ${[one.reason, one.cause, one.back_in_seconds && duration(one.back_in_seconds * 1000)].filter(Boolean).join(", ")}`)));
}

customElements.define("ds-requests", Requests);
