// Vercel: copy the config to a project, and see whether the copy is what holds here.

import { h, Part, put } from "../shared/dom.js";
import { moment, t } from "../shared/i18n.js";
import { attempt, badge, button, field, notice } from "../shared/ui.js";
import { call } from "./session.js";

class Vercel extends Part {
  start() {
    this.load();
  }

  async load() {
    const [ours, status] = (await attempt(() => Promise.all([call("GET", "admin/vercel/config"), call("GET", "admin/vercel/status")]))) ?? [];
    if (ours) this.show(ours, status);
  }

  show(ours, status) {
    const token = h("input", { type: "password", autocomplete: "off", placeholder: ours.has_token ? t("accounts.kept") : "" });
    const project = h("input", { value: ours.project_id ?? "", autocomplete: "off" });
    const team = h("input", { value: ours.team_id ?? "", autocomplete: "off" });
    const validate = h("input", { type: "checkbox", id: "validate", checked: true });
    const keep = h("input", { type: "checkbox", id: "keep", checked: true });
    const sync = async (pressed) => {
      const body = { vercel_token: token.value, project_id: project.value, team_id: team.value, auto_validate: validate.checked, save_credentials: keep.checked };
      const answer = await attempt(() => call("POST", "admin/vercel/sync", { body }), pressed);
      if (!answer) return;
      notice([answer.message, answer.deployment_url].filter(Boolean).join("\n"));
      await this.load();
    };
    const state = status.synced ? badge(t("vercel.synced"), "good") : badge(status.has_synced_before ? t("vercel.stale") : t("vercel.never"), "warn");
    put(
      this,
      h(
        "section",
        { class: "card stack" },
        h("div", { class: "row" }, state, h("span", { class: "soft" }, status.last_sync_time ? t("vercel.last", { time: moment(status.last_sync_time) }) : "")),
        h("p", { class: "hint" }, t("vercel.text")),
        h("div", { class: "fields" }, field(t("vercel.token"), token), field(t("vercel.project"), project), field(t("vercel.team"), team)),
        h("label", { class: "check", for: "validate" }, validate, t("vercel.validate")),
        h("label", { class: "check", for: "keep" }, keep, t("vercel.keep")),
        h("div", {}, button(t("vercel.sync"), sync, "primary")),
      ),
    );
  }
}

customElements.define("ds-vercel", Vercel);
