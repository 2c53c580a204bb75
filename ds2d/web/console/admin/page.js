// The operator's page: a login, then the views behind `#`.

import "./overview.js";
import "./accounts.js";
import "./keys.js";
import "./usage.js";
import "./requests.js";
import "./settings.js";
import "./config.js";
import "./vercel.js";
import "./captures.js";
import "./connect.js";
import { h, Part, put } from "../shared/dom.js";
import { t } from "../shared/i18n.js";
import { start } from "../shared/start.js";
import { badge, button, field, problem } from "../shared/ui.js";
import { follow, live } from "./live.js";
import { logIn, logOut, session } from "./session.js";

const VIEWS = ["overview", "accounts", "keys", "usage", "requests", "settings", "config", "vercel", "captures", "connect"];

class Admin extends Part {
  start() {
    session.watch((token) => (token ? this.show(this.asked) : this.askIn()), this.signal);
    live.watch((state) => this.tell(state), this.signal);
    addEventListener("hashchange", () => session.value && this.show(true), { signal: this.signal });
  }

  askIn() {
    this.asked = true;
    const key = h("input", { type: "password", autocomplete: "current-password", required: true });
    const stay = h("input", { type: "checkbox", id: "stay" });
    const wrong = h("p", { class: "wrong", role: "alert" });
    const go = h("button", { class: "button primary" }, t("login.go"));
    const act = async (event) => {
      event.preventDefault();
      go.disabled = true;
      wrong.textContent = "";
      try {
        await logIn(key.value, stay.checked);
      } catch (error) {
        wrong.textContent = error.status === 401 ? t("login.wrong") : problem(error);
        go.disabled = false;
      }
    };
    put(
      this,
      h(
        "form",
        { class: "card stack login", on: { submit: act } },
        h("h1", {}, t("login.title")),
        h("p", { class: "soft" }, t("login.text")),
        field(t("login.key"), key),
        h("label", { class: "check", for: "stay" }, stay, t("login.stay")),
        wrong,
        go,
      ),
    );
    key.focus();
  }

  /** Whether what is shown is of this moment. */
  tell({ connected }) {
    if (this.line) put(this.line, connected ? badge(t("live.on"), "good") : badge(t("live.off"), "warn"));
  }

  show(moved = false) {
    const [name, ...rest] = location.hash.slice(1).split("/");
    const view = VIEWS.includes(name) ? name : "overview";
    const link = (one) => h("a", { href: `#${one}`, "aria-current": one === view ? "page" : null }, t(`view.${one}`));
    const about = h(`ds-${view}`, { about: rest.join("/") });
    const head = h("h1", { tabindex: -1 }, t(`view.${view}`));
    this.line = h("span", {});
    put(
      this,
      h("nav", { class: "views", "aria-label": t("view.label") }, VIEWS.map(link), h("div", { class: "foot" }, this.line, button(t("login.out"), logOut, "small quiet"))),
      h("div", { class: "view stack" }, head, h("ds-alarms"), about),
    );
    document.title = `ds2d · ${t(`view.${view}`)}`;
    this.tell(live.value);
    if (moved) head.focus();
  }
}

/** What is wrong with the config on disk, wherever the operator looks. */
class Alarms extends Part {
  start() {
    live.watch(({ config }) => this.show(config), this.signal);
  }

  show({ problem: wrong = [], warnings = [], pending_restart: waiting = [] }) {
    const lines = [
      [wrong, "bad", t("alarm.problem")],
      [warnings, "warn", t("alarm.warnings")],
      [waiting, "warn", t("alarm.restart")],
    ];
    put(this, lines.filter(([found]) => found.length).map(([found, kind, title]) => h("div", { class: `alarm ${kind}`, role: "status" }, h("strong", {}, title), " ", found.slice(0, 5).join("; "), found.length > 5 && " …")));
  }
}

customElements.define("ds-alarms", Alarms);
customElements.define("ds-admin", Admin);
follow();
start("admin", () => h("ds-admin"));
