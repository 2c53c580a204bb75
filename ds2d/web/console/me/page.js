// A key holder's own page: limits, use, models and recent errors of the key.

import { ask } from "../shared/api.js";
import { h, Part, put } from "../shared/dom.js";
import { moment, named, number, t } from "../shared/i18n.js";
import { start } from "../shared/start.js";
import { badge, button, problem, table } from "../shared/ui.js";
import { key, keyForm, useKey } from "../shared/usekey.js";

class Me extends Part {
  start() {
    key.watch((value) => (value ? this.load() : put(this, keyForm())), this.signal);
  }

  async load() {
    try {
      this.show(await ask("GET", "v1/usage", { credential: key.value, signal: this.signal }));
    } catch (error) {
      if (error.name !== "AbortError") put(this, h("p", { class: "wrong", role: "alert" }, problem(error)), keyForm());
    }
  }

  show(usage) {
    const quota = (one) =>
      h(
        "div",
        { class: "field" },
        h("div", { class: "row between" }, h("span", {}, named("quota", one.kind)), h("span", { class: "num" }, `${number(one.used)} / ${number(one.limit)}`)),
        h("meter", { value: one.used, max: one.limit, high: one.limit * 0.9, "aria-label": named("quota", one.kind) }),
      );
    const used = Object.entries(usage.used);
    put(
      this,
      h("div", { class: "row between" }, h("h1", {}, t("me.title", { name: usage.key })), button(t("key.forget"), () => useKey(""), "small")),
      h(
        "div",
        { class: "card" },
        h("h2", {}, t("me.limits")),
        usage.quota.limits.map(quota),
        h(
          "dl",
          { class: "facts" },
          h("dt", {}, t("me.expires")),
          h("dd", {}, usage.expires_at ? moment(usage.expires_at) : t("me.never")),
          h("dt", {}, t("me.renews")),
          h("dd", {}, usage.quota.renews_at ? moment(usage.quota.renews_at) : t("me.never")),
          h("dt", {}, t("me.models")),
          h("dd", {}, usage.models.map((model) => [badge(model), " "])),
          Object.entries(usage.rate_limits).map(([name, left]) => [h("dt", {}, t("me.rate", { name })), h("dd", {}, `${number(left.remaining)} / ${number(left.limit)}`)]),
        ),
      ),
      h(
        "div",
        { class: "card" },
        h("h2", {}, t("me.used")),
        table(
          [
            [t("me.window"), ([name]) => named("window", name)],
            [t("usage.prompt"), ([, one]) => number(one.prompt_tokens), "num"],
            [t("usage.completion"), ([, one]) => number(one.completion_tokens), "num"],
            [t("usage.total"), ([, one]) => number(one.total_tokens), "num"],
          ],
          used,
          { caption: t("me.used") },
        ),
      ),
      h(
        "div",
        { class: "card" },
        h("h2", {}, t("me.errors")),
        table(
          [
            [t("requests.began"), (one) => moment(one.began_at)],
            [t("requests.model"), (one) => one.model],
            [t("requests.end"), (one) => named("end", one.state)],
            [t("requests.cause"), (one) => one.cause],
            [t("requests.id"), (one) => h("code", {}, one.request_id)],
          ],
          usage.recent_errors,
          { caption: t("me.errors"), none: t("me.noErrors") },
        ),
      ),
    );
  }
}

customElements.define("ds-me", Me);
start("me", () => h("ds-me"));
