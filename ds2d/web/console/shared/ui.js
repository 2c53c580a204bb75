// Pieces that every page uses: dialogs, short notices, copying, choices of language and light.

import { Failure } from "./api.js";
import { h, put, unique } from "./dom.js";
import { LANGUAGES, language, speak, t } from "./i18n.js";
import { browser } from "./keep.js";

const SHOWN_MS = 6000;

/** Say something for a few seconds, to screen readers as well. */
export function notice(text, kind = "good") {
  let place = document.querySelector(".notices");
  if (!place) document.body.append((place = h("div", { class: "notices", role: "status", "aria-live": "polite" })));
  const one = h("div", { class: `notice ${kind}` }, text);
  place.append(one);
  setTimeout(() => one.remove(), SHOWN_MS);
}

/** Words for what went wrong. */
export function problem(error) {
  if (!(error instanceof Failure)) return error.message;
  if (error.status === 0) return t("problem.unreachable");
  return error.message || t("problem.status", { status: error.status });
}

/** Run something that may be refused: `busy` is the button that must not be pressed twice. Undefined where it failed. */
export async function attempt(act, busy) {
  if (busy) busy.disabled = true;
  try {
    return await act();
  } catch (error) {
    if (error.name !== "AbortError") notice(problem(error), "bad");
    return undefined;
  } finally {
    if (busy) busy.disabled = false;
  }
}

/** `attempt`s of which only the last one counts: what comes late to an earlier question is undefined. */
export function onlyLast() {
  let last;
  return async (act) => {
    const mine = (last = Symbol("question"));
    const answer = await attempt(act);
    return mine === last ? answer : undefined;
  };
}

export function button(label, act, kind = "", more = {}) {
  const made = h("button", { type: "button", class: `button ${kind}`, on: { click: () => act(made) }, ...more }, label);
  return made;
}

/** A labelled field; the hint and the control belong together for screen readers. */
export function field(label, control, hint) {
  const id = (control.id ||= `f-${unique()}`);
  const note = hint ? h("small", { class: "hint", id: `${id}-hint` }, hint) : null;
  if (note) control.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { for: id }, label), control, note);
}

/** A choice; `options` are values, or pairs of value and label. */
export function choice(options, value, props = {}) {
  const made = options.map((one) => (Array.isArray(one) ? one : [one, one]));
  return h("select", { value, ...props }, made.map(([each, label]) => h("option", { value: each }, label)));
}

/** A dialog over the page. `content` gets a function that closes it; resolves to what that was given. */
export function dialog(title, content, { wide = false } = {}) {
  return new Promise((resolve) => {
    const box = h("dialog", { class: wide ? "wide" : "", "aria-labelledby": "dialog-title" });
    const close = (result) => {
      box.close();
      box.remove();
      resolve(result);
    };
    box.addEventListener("cancel", (event) => {
      event.preventDefault();
      close(undefined);
    });
    const away = button("×", () => close(undefined), "quiet close", { "aria-label": t("common.close") });
    put(box, h("header", {}, h("h2", { id: "dialog-title" }, title), away), content(close));
    document.body.append(box);
    box.showModal();
  });
}

/** Ask before something that cannot be taken back. */
export function confirmed(title, text, label) {
  return dialog(title, (close) => [
    h("p", {}, text),
    h(
      "footer",
      {},
      button(t("common.cancel"), () => close(false)),
      button(label, () => close(true), "danger"),
    ),
  ]);
}

/** A form in a dialog: `fields` are nodes, `save` does the work and may refuse. */
export function formDialog(title, fields, label, save, options) {
  return dialog(
    title,
    (close) => {
      const wrong = h("p", { class: "wrong", role: "alert" });
      const go = h("button", { class: "button primary" }, label);
      const act = async (event) => {
        event.preventDefault();
        go.disabled = true;
        try {
          close((await save()) ?? true);
        } catch (error) {
          wrong.textContent = problem(error);
        } finally {
          go.disabled = false;
        }
      };
      const cancel = button(t("common.cancel"), () => close(undefined));
      return h("form", { on: { submit: act } }, fields, wrong, h("footer", {}, cancel, go));
    },
    options,
  );
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { value: text, class: "unseen" }); // pages without TLS have no clipboard
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  notice(t("common.copied"));
}

/** A block of text to copy. */
export function code(text, label) {
  return h(
    "figure",
    { class: "code" },
    h("figcaption", {}, h("span", {}, label ?? ""), button(t("common.copy"), () => copy(text), "small quiet")),
    h("pre", { tabindex: 0 }, h("code", {}, text)),
  );
}

/** Give the reader a file. */
export function download(name, text, kind) {
  const url = URL.createObjectURL(new Blob([text], { type: kind }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** A state as a coloured word; the word carries the meaning, not the colour. */
export function badge(word, kind = "") {
  return h("span", { class: `badge ${kind}` }, word);
}

/** What a place without anything says. */
export function empty(text) {
  return h("p", { class: "empty" }, text);
}

/** A table; `columns` are [title, cell of a row, class of the column]; `of` names a row, for `redraw`. */
export function table(columns, rows, { caption, none, of } = {}) {
  if (!rows.length && none) return empty(none);
  const head = columns.map(([title, , kind]) => h("th", { scope: "col", class: kind }, title));
  const line = (row) => h("tr", { "data-row": of?.(row) }, columns.map(([, cell, kind]) => h("td", { class: kind }, cell(row))));
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows.map(line))),
  );
}

/** `put` for a table that is drawn anew by itself: whoever has scrolled it, or is in it with the keyboard, stays there. */
export function redraw(place, ...children) {
  const scrolled = place.querySelector(".scroll")?.scrollLeft ?? 0;
  const held = place.contains(document.activeElement) ? document.activeElement : null;
  const row = held?.closest("tr")?.dataset.row;
  put(place, ...children);
  const scroll = place.querySelector(".scroll");
  if (scroll) scroll.scrollLeft = scrolled;
  if (!held) return;
  const same = (one) => one.textContent === held.textContent && one.closest("tr")?.dataset.row === row;
  const next = held.matches(".scroll") ? scroll : [...place.querySelectorAll("button")].find(same);
  next?.focus({ preventScroll: true });
}

export function light(wanted) {
  if (wanted !== undefined) browser.set("ds2d.theme", wanted);
  const chosen = browser.get("ds2d.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
}

function isDark() {
  return (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}

/** The head of every page. `changed` builds the page anew in another language. */
export function masthead(here, changed, ...more) {
  const links = [
    ["playground", "./"],
    ["admin", "./admin"],
    ["me", "./me"],
  ];
  const tongue = choice(
    Object.entries(LANGUAGES).map(([tag, { name }]) => [tag, name]),
    language(),
    { "aria-label": t("head.language"), class: "quiet", on: { change: (event) => speak(event.target.value).then(changed) } },
  );
  const lamp = button(isDark() ? "☀" : "☾", () => {
    light(isDark() ? "light" : "dark");
    lamp.textContent = isDark() ? "☀" : "☾";
  }, "quiet round", { "aria-label": t("head.theme"), title: t("head.theme") });
  const link = ([name, path]) =>
    h("a", { href: new URL(path, new URL("../../", import.meta.url)), "aria-current": name === here ? "page" : null }, t(`head.${name}`));
  return h(
    "header",
    { class: "masthead" },
    h("a", { class: "brand", href: new URL("../../", import.meta.url) }, h("span", { class: "mark", "aria-hidden": true }, "◆"), "ds2d"),
    h("nav", { "aria-label": t("head.pages") }, links.map(link)),
    h("div", { class: "tools" }, more, tongue, lamp),
  );
}
