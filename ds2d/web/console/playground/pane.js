// One conversation with one model: what was said, what is being said, and what it cost.

import { open } from "../shared/api.js";
import { h, Part, put } from "../shared/dom.js";
import { duration, number, t } from "../shared/i18n.js";
import { events } from "../shared/sse.js";
import { badge, problem } from "../shared/ui.js";
import { key } from "../shared/usekey.js";

/** The body of a request. Empty settings are left out. */
export function bodyOf(model, messages, settings) {
  const system = settings.system ? [{ role: "system", content: settings.system }] : [];
  const sent = messages.filter((message) => !message.error || message.content).map(plain);
  const body = { model, messages: [...system, ...sent] };
  if (settings.temperature !== "") body.temperature = Number(settings.temperature);
  if (settings.maxTokens !== "") body.max_tokens = Number(settings.maxTokens);
  if (settings.thinking !== "auto") body.thinking = { type: settings.thinking };
  if (settings.tools?.length) body.tools = settings.tools;
  return { ...body, stream: true, stream_options: { include_usage: true } };
}

/** A message as it may stand in a request: calls that nobody ran are told as text, for a call without its result is refused. */
function plain({ role, content, tool_calls: calls }) {
  const called = (calls ?? []).map((call) => `${call.function.name}(${call.function.arguments})`);
  return { role, content: [content, ...called].filter(Boolean).join("\n") || "…" };
}

export const pinOf = (settings) => (settings.pin ? { "X-Ds2-Target-Account": settings.pin } : {});

class Pane extends Part {
  messages = [];
  running = null;

  start() {
    this.log = h("div", { class: "log", role: "log", "aria-live": "off", tabindex: 0, "aria-label": t("chat.log") });
    put(this, this.log);
    this.signal.addEventListener("abort", () => this.stop());
    this.show();
  }

  stop() {
    this.running?.abort();
  }

  show() {
    put(this.log, this.messages.length ? this.messages.map((message) => said(message)) : h("p", { class: "empty" }, t("chat.empty")));
    this.toEnd();
  }

  toEnd() {
    this.log.scrollTop = this.log.scrollHeight;
  }

  /** Say something and read the answer as it comes. */
  async send(text, model, settings) {
    this.messages.push({ role: "user", content: text });
    await this.answer(model, settings);
  }

  async answer(model, settings) {
    const answer = { role: "assistant", content: "", model };
    const body = bodyOf(model, this.messages, settings);
    this.messages.push(answer);
    this.show();
    this.running = new AbortController();
    const began = performance.now();
    try {
      const response = await open("POST", "v1/chat/completions", {
        body,
        credential: key.value || undefined,
        headers: pinOf(settings),
        signal: this.running.signal,
      });
      answer.route = response.headers.get("x-ds2d-route") ?? "";
      for await (const event of events(response)) {
        if (event.data === "[DONE]") continue;
        take(answer, JSON.parse(event.data), performance.now() - began);
        this.draw(answer);
      }
    } catch (error) {
      if (error.name === "AbortError") answer.stopped = true;
      else answer.error = problem(error);
    } finally {
      answer.ms = performance.now() - began;
      this.running = null;
      this.draw(answer);
    }
  }

  /** Draw the answer at the end anew, at most once a frame. */
  draw(answer) {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      const low = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 60;
      if (this.messages.at(-1) !== answer) return; // another conversation is shown by now
      this.log.lastElementChild?.replaceWith(said(answer, this.running !== null));
      if (low) this.toEnd();
    });
  }
}

/** Add one chunk to an answer. */
export function take(answer, chunk, ms) {
  if (chunk.error) throw new Error(chunk.error.message);
  if (chunk.usage) answer.usage = chunk.usage;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  const delta = choice.delta ?? {};
  if (answer.firstMs === undefined && (delta.content || delta.reasoning_content || delta.tool_calls)) answer.firstMs = ms;
  if (delta.content) answer.content += delta.content;
  if (delta.reasoning_content) answer.reasoning = (answer.reasoning ?? "") + delta.reasoning_content;
  for (const call of delta.tool_calls ?? []) {
    answer.tool_calls ??= [];
    const known = (answer.tool_calls[call.index] ??= { id: call.id, type: "function", function: { name: "", arguments: "" } });
    known.function.name += call.function?.name ?? "";
    known.function.arguments += call.function?.arguments ?? "";
  }
  if (choice.finish_reason) answer.finish = choice.finish_reason;
}

function said(message, running = false) {
  const mine = message.role === "user";
  const parts = [
    message.reasoning &&
      h("details", { class: "reasoning", open: running && !message.content }, h("summary", {}, t("chat.reasoning")), h("pre", {}, message.reasoning)),
    message.content && h("div", { class: "text" }, blocks(message.content)),
    (message.tool_calls ?? []).map((call) =>
      h("div", { class: "toolcall" }, badge(t("chat.toolcall"), "accent"), " ", h("code", {}, call.function.name), h("pre", {}, pretty(call.function.arguments))),
    ),
    running && !message.content && !message.reasoning && h("span", { class: "waiting" }, t("chat.waiting")),
    message.stopped && badge(t("chat.stopped"), "warn"),
    message.error && h("p", { class: "wrong", role: "alert" }, message.error),
    !mine && !running && figures(message),
  ];
  const who = mine ? t("chat.you") : message.role === "tool" ? t("chat.tool") : (message.model ?? t("chat.model"));
  return h("article", { class: `message ${message.role}` }, h("header", {}, who), parts);
}

function figures(message) {
  const { usage, ms, firstMs, finish, route } = message;
  if (ms === undefined) return null;
  const rate = usage && ms > firstMs ? (usage.completion_tokens / (ms - firstMs)) * 1000 : null;
  const found = [
    firstMs !== undefined && t("chat.first", { time: duration(firstMs) }),
    t("chat.whole", { time: duration(ms) }),
    usage && t("chat.tokens", { prompt: number(usage.prompt_tokens), completion: number(usage.completion_tokens) }),
    rate && t("chat.rate", { rate: number(rate, 1) }),
    finish && finish !== "stop" && finish,
    route,
  ];
  return h("footer", {}, found.filter(Boolean).join(" · "));
}

/** Text with its fenced blocks set apart. */
function blocks(text) {
  return text.split(/^```[^\n]*\n?/m).map((part, index) => (index % 2 ? h("pre", { class: "block" }, part) : h("p", {}, part.trim())));
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

customElements.define("ds-pane", Pane);
