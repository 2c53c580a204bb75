// Completion mode: a prompt that the model goes on with.

import "./models.js";
import { open } from "../shared/api.js";
import { h, Part, put } from "../shared/dom.js";
import { duration, number, t } from "../shared/i18n.js";
import { events } from "../shared/sse.js";
import { button, dialog, field, problem } from "../shared/ui.js";
import { key } from "../shared/usekey.js";
import { snippets } from "./snippets.js";

class Completion extends Part {
  start() {
    this.model = h("ds-models");
    this.prompt = h("textarea", { rows: 8, placeholder: t("completion.placeholder") });
    this.most = h("input", { type: "number", min: 1, value: 256 });
    this.output = h("div", { class: "output", role: "log", tabindex: 0, "aria-label": t("completion.output") });
    this.figures = h("p", { class: "hint" });
    this.go = button(t("completion.go"), () => this.run(), "primary");
    this.halt = button(t("chat.stop"), () => this.running?.abort(), "danger", { hidden: true });
    this.signal.addEventListener("abort", () => this.running?.abort());
    put(
      this,
      h(
        "div",
        { class: "card stack" },
        h("div", { class: "row" }, this.model),
        field(t("completion.prompt"), this.prompt),
        h("div", { class: "row" }, field(t("chat.maxTokens"), this.most)),
        h("div", { class: "row between" }, button(t("chat.code"), () => this.code(), "small"), h("div", { class: "row" }, this.halt, this.go)),
      ),
      h("div", { class: "card stack" }, h("h2", {}, t("completion.output")), this.output, this.figures),
    );
  }

  body() {
    return {
      model: this.model.value,
      prompt: this.prompt.value,
      max_tokens: Number(this.most.value) || 256,
      stream: true,
      stream_options: { include_usage: true },
    };
  }

  code() {
    dialog(t("chat.code"), () => snippets("v1/completions", this.body(), {}), { wide: true });
  }

  async run() {
    const made = h("mark", {});
    put(this.output, this.prompt.value, made);
    this.figures.textContent = "";
    this.running = new AbortController();
    this.go.disabled = !(this.halt.hidden = false);
    const began = performance.now();
    let usage = null;
    try {
      const response = await open("POST", "v1/completions", { body: this.body(), credential: key.value || undefined, signal: this.running.signal });
      for await (const { data } of events(response)) {
        if (data === "[DONE]") continue;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        usage = chunk.usage ?? usage;
        made.append(chunk.choices?.[0]?.text ?? "");
      }
    } catch (error) {
      if (error.name !== "AbortError") put(this.output, h("p", { class: "wrong", role: "alert" }, problem(error)));
    } finally {
      this.running = null;
      this.go.disabled = !(this.halt.hidden = true);
      const counts = usage && t("chat.tokens", { prompt: number(usage.prompt_tokens), completion: number(usage.completion_tokens) });
      this.figures.textContent = [t("chat.whole", { time: duration(performance.now() - began) }), counts].filter(Boolean).join(" · ");
    }
  }
}

customElements.define("ds-completion", Completion);
