// Texts in the reader's language. Keys stand in text/en.js and its sisters; a test holds that none is missing or left over.

import en from "../text/en.js";
import { browser } from "./keep.js";

/** Language to its own name and where its texts are. */
export const LANGUAGES = {
  en: { name: "English", load: async () => ({ default: en }) },
  zh: { name: "中文", load: () => import("../text/zh.js") },
  ko: { name: "한국어", load: () => import("../text/ko.js") },
  uk: { name: "Українська", load: () => import("../text/uk.js") },
};

let texts = en;
let current = "en";

export const language = () => current;

/** Read the texts of a language: the one given, the one chosen before, or the first of the browser's that there is. */
export async function speak(wanted) {
  const candidates = [wanted ?? browser.get("ds2d.language"), ...navigator.languages.map((tag) => tag.slice(0, 2))];
  current = candidates.find((one) => Object.hasOwn(LANGUAGES, one ?? "")) ?? "en";
  texts = (await LANGUAGES[current].load()).default;
  if (wanted) browser.set("ds2d.language", wanted);
  document.documentElement.lang = current;
}

/** The text of a key, with `{name}` filled in from `values`. */
export function t(key, values = {}) {
  return (texts[key] ?? en[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** The text of one of several keys that share a beginning; the word itself where nobody has named it. */
export function named(group, word) {
  return texts[`${group}.${word}`] ?? en[`${group}.${word}`] ?? String(word ?? "");
}

export function number(value, digits = 0) {
  if (value == null) return "–";
  return new Intl.NumberFormat(current, { maximumFractionDigits: digits }).format(value);
}

/** A big count in few characters. */
export function short(value) {
  if (value == null) return "–";
  return new Intl.NumberFormat(current, { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

export function duration(milliseconds) {
  if (milliseconds == null) return "–";
  if (milliseconds < 1000) return `${number(milliseconds, milliseconds < 10 ? 1 : 0)} ms`;
  if (milliseconds < 120000) return `${number(milliseconds / 1000, 1)} s`;
  if (milliseconds < 7200000) return `${number(milliseconds / 60000)} min`;
  return `${number(milliseconds / 3600000, 1)} h`;
}

/** A time as people write it; `when` is Unix seconds or RFC 3339. */
export function moment(when, style = "short") {
  if (when == null || when === "") return "–";
  const date = new Date(typeof when === "number" ? when * 1000 : when);
  if (Number.isNaN(date.getTime())) return String(when);
  if (style === "clock") return date.toLocaleTimeString(current, { hour: "2-digit", minute: "2-digit" });
  if (style === "day") return date.toLocaleDateString(current, { dateStyle: "medium" });
  return date.toLocaleString(current, { dateStyle: "short", timeStyle: "medium" });
}
