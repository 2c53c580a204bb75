// Token statistics: which credential is next, what failed, what is put aside, which limits were observed.

import { ask, Failure } from "../shared/api.js";
import { h, Part, put } from "../shared/dom.js";
import { language, moment, named, number, t } from "../shared/i18n.js";
import { attempt, badge, button, notice, problem, table } from "../shared/ui.js";
import { key } from "../shared/usekey.js";

const KINDS = { ready: "good", busy: "accent", cooling: "warn", half_open: "warn", open: "bad", disabled: "" };

class Stats extends Part {
  start() {
    if (!key.value) return put(this, h("div", { class: "card" }, t("stats.closed")));
    this.every(5000, () => this.load());
    this.load();
  }

  async call(method, path) {
    return ask(method, path, { credential: key.value || undefined, signal: this.signal, headers: { "Accept-Language": language() } });
  }

  async load() {
    try {
      const [stats, observed] = await Promise.all([this.call("GET", "v1/tokens/stats"), this.call("GET", "v1/rate-limits/observed")]);
      this.show(stats, observed);
    } catch (error) {
      if (error.name === "AbortError") return;
      const closed = error instanceof Failure && [401, 403].includes(error.status);
      put(this, h("div", { class: "card" }, h("p", {}, closed ? t("stats.closed") : problem(error))));
    }
  }

  show(stats, observed) {
    const tell = (path) => async (pressed) => {
      const answer = await attempt(() => this.call("POST", path), pressed);
      if (answer) notice(answer.message);
      await this.load();
    };
    const columns = [
      [t("stats.token"), (one) => [h("strong", {}, one.key), one.key === stats.current_token && [" ", badge(t("stats.next"), "accent")]]],
      [t("stats.upstream"), (one) => one.upstream],
      [t("stats.state"), (one) => [badge(named("state", one.state), KINDS[one.state] ?? "bad"), one.reason && ` ${named("reason", one.reason)}`]],
      [t("stats.until"), (one) => moment(one.blocked_until)],
      [t("stats.failures"), (one) => number(one.failures), "num"],
      [t("stats.running"), (one) => number(one.inflight), "num"],
      [t("stats.last"), (one) => moment(one.lastUsed)],
    ];
    put(
      this,
      h(
        "div",
        { class: "card" },
        h("header", {}, h("h2", {}, t("stats.title")), h("div", { class: "row" }, button(t("stats.rotate"), tell("v1/tokens/rotate")), button(t("stats.reset"), tell("v1/tokens/reset-stats")))),
        table(columns, stats.tokens, { caption: t("stats.title"), none: t("stats.none") }),
      ),
      h("div", { class: "card" }, h("h2", {}, t("stats.observed")), limits(observed)),
    );
  }
}

/** A line for each account and model; the columns are the fields' own names. */
function limits(observed) {
  const names = [...new Set(observed.data.flatMap(Object.keys))];
  const shown = (value) => (typeof value === "number" ? number(value, 1) : value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : value);
  const columns = names.map((name) => [h("code", {}, name), (one) => shown(one[name]), typeof observed.data[0]?.[name] === "string" ? "" : "num"]);
  return table(columns, observed.data, { caption: t("stats.observed"), none: t("stats.noneObserved") });
}

customElements.define("ds-stats", Stats);
