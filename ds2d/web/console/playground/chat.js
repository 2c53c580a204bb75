// Chat mode: conversations kept in this browser, one model or two side by side, and the request to copy.

import "./models.js";
import "./pane.js";
import { h, Part, put, unique } from "../shared/dom.js";
import { moment, t } from "../shared/i18n.js";
import { browser } from "../shared/keep.js";
import { button, choice, dialog, field, notice } from "../shared/ui.js";
import { snippets } from "./snippets.js";
import { bodyOf, pinOf } from "./pane.js";

const KEEP = "ds2d.conversations";
const KEPT = 50;
const EXAMPLE = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "The weather in a city",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];
const BLANK = { system: "", temperature: "", maxTokens: "", thinking: "auto", pin: "", tools: [] };

class Chat extends Part {
  start() {
    this.conversations = browser.get(KEEP) ?? [];
    this.settings = { ...BLANK, ...browser.get("ds2d.settings") };
    this.panes = [h("ds-pane")];
    this.pickers = [this.picker(0)];
    this.list = h("ul", { class: "conversations" });
    this.text = h("textarea", {
      rows: 3,
      placeholder: t("chat.placeholder"),
      "aria-label": t("chat.message"),
      on: { keydown: (event) => this.typed(event) },
    });
    this.sendButton = button(t("chat.send"), () => this.send(), "primary");
    this.stopButton = button(t("chat.stop"), () => this.panes.forEach((pane) => pane.stop()), "danger", { hidden: true });
    this.stage = h("div", { class: "panes" });
    this.side = h("input", { type: "checkbox", id: "side", on: { change: () => this.arrange() } });
    put(
      this,
      h("aside", { class: "stack" }, button(t("chat.new"), () => this.begin(), "primary"), this.list),
      h(
        "div",
        { class: "stack middle" },
        h("div", { class: "row between" }, (this.heads = h("div", { class: "row" })), h("label", { class: "check", for: "side" }, this.side, t("chat.side"))),
        this.stage,
        h(
          "div",
          { class: "composer" },
          this.text,
          h("div", { class: "row between" }, h("div", { class: "row" }, button(t("chat.code"), () => this.showCode(), "small")), h("div", { class: "row" }, this.stopButton, this.sendButton)),
        ),
      ),
      this.options(),
    );
    this.arrange();
    this.begin();
    addEventListener("storage", ({ key }) => key === KEEP && this.adopt(), { signal: this.signal });
  }

  /** Another tab said or forgot something: what it kept is the list here, too, or the next to be kept here would undo it. */
  adopt() {
    const kept = browser.get(KEEP) ?? [];
    this.conversations = kept.map((one) => (one.id === this.conversation.id ? this.conversation : one));
    this.showList();
  }

  picker(index) {
    const made = h("ds-models", { label: index ? t("chat.model2") : t("chat.model") });
    made.value = browser.get(`ds2d.model${index}`) ?? "";
    made.addEventListener("change", () => browser.set(`ds2d.model${index}`, made.value));
    return made;
  }

  /** One pane or two. */
  arrange() {
    if (this.side.checked && this.panes.length === 1) {
      this.panes.push(h("ds-pane"));
      this.pickers.push(this.picker(1));
    } else if (!this.side.checked && this.panes.length === 2) {
      this.panes.pop().remove();
      this.pickers.pop().remove();
    }
    for (const pane of this.panes) if (!pane.isConnected) this.stage.append(pane);
    for (const picker of this.pickers) if (!picker.isConnected) this.heads.append(picker);
    this.stage.classList.toggle("two", this.panes.length === 2);
  }

  begin(conversation = { id: unique(), title: "", at: Date.now() / 1000, messages: [] }) {
    this.panes.forEach((pane) => pane.stop());
    this.conversation = conversation;
    this.panes.forEach((pane, index) => {
      pane.messages = index ? [] : conversation.messages;
      pane.show();
    });
    this.showList();
    this.text.focus({ preventScroll: true });
  }

  showList() {
    const line = (one) =>
      h(
        "li",
        { class: one.id === this.conversation.id ? "here" : "" },
        h("button", { type: "button", class: "open", "aria-current": one.id === this.conversation.id ? "true" : null, title: moment(one.at), on: { click: () => this.begin(one) } }, one.title || t("chat.untitled")),
        button("×", () => this.forget(one), "small quiet", { "aria-label": t("chat.delete", { title: one.title }) }),
      );
    put(this.list, this.conversations.map(line));
  }

  forget(one) {
    this.conversations = this.conversations.filter((other) => other !== one);
    browser.set(KEEP, this.conversations);
    if (one === this.conversation) this.begin();
    else this.showList();
  }

  keep(one) {
    one.at = Date.now() / 1000;
    one.title ||= (one.messages[0]?.content ?? "").slice(0, 60);
    this.conversations = [one, ...this.conversations.filter((other) => other.id !== one.id)].slice(0, KEPT);
    while (!browser.set(KEEP, this.conversations) && this.conversations.length > 1) this.conversations.pop(); // the oldest
    this.showList();
  }

  typed(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.send();
  }

  async send() {
    const text = this.text.value.trim();
    if (!text || !this.stopButton.hidden) return;
    const { conversation } = this; // another one may be looked at before this one is answered
    this.text.value = "";
    this.busy(true);
    try {
      const answers = this.panes.map((pane, index) => pane.send(text, this.pickers[index].value, this.settings));
      this.keep(conversation); // the question, should the page go before the answer is whole
      await Promise.all(answers);
    } finally {
      this.busy(false);
      if (this.conversations.some((one) => one.id === conversation.id)) this.keep(conversation); // it may be forgotten by now
    }
  }

  busy(now) {
    this.stopButton.hidden = !now;
    this.sendButton.disabled = now;
  }

  options() {
    const set = (name, value) => {
      this.settings[name] = value;
      browser.set("ds2d.settings", this.settings);
    };
    const input = (name, props) => h("input", { value: this.settings[name], on: { change: (event) => set(name, event.target.value) }, ...props });
    const tools = h("textarea", {
      rows: 5,
      class: "mono",
      spellcheck: "false",
      value: this.settings.tools.length ? JSON.stringify(this.settings.tools, null, 1) : "",
      on: { change: (event) => this.setTools(event.target, set) },
    });
    const example = button(t("chat.example"), () => {
      tools.value = JSON.stringify(EXAMPLE, null, 1);
      set("tools", EXAMPLE);
    }, "small");
    const thinking = ["auto", "enabled", "disabled"].map((mode) => [mode, t(`thinking.${mode}`)]);
    return h(
      "details",
      { class: "card options", open: innerWidth > 1100 },
      h("summary", {}, t("chat.options")),
      h(
        "div",
        { class: "stack" },
        field(t("chat.system"), h("textarea", { rows: 3, value: this.settings.system, on: { change: (event) => set("system", event.target.value) } })),
        field(t("chat.thinking"), choice(thinking, this.settings.thinking, { on: { change: (event) => set("thinking", event.target.value) } })),
        field(t("chat.temperature"), input("temperature", { type: "number", min: 0, max: 2, step: 0.1 })),
        field(t("chat.maxTokens"), input("maxTokens", { type: "number", min: 1 })),
        field(t("chat.pin"), input("pin", { autocomplete: "off" }), t("chat.pinHint")),
        field(t("chat.tools"), tools, t("chat.toolsHint")),
        h("div", {}, example),
      ),
    );
  }

  setTools(area, set) {
    try {
      const tools = area.value.trim() ? JSON.parse(area.value) : [];
      if (!Array.isArray(tools)) throw new Error();
      set("tools", tools);
      area.removeAttribute("aria-invalid");
    } catch {
      area.setAttribute("aria-invalid", "true");
      notice(t("chat.badTools"), "bad");
    }
  }

  showCode() {
    const messages = [...this.conversation.messages, { role: "user", content: this.text.value.trim() || "Hello" }];
    const body = bodyOf(this.pickers[0].value, messages, this.settings);
    dialog(t("chat.code"), () => snippets("v1/chat/completions", body, pinOf(this.settings)), { wide: true });
  }
}

customElements.define("ds-chat", Chat);
