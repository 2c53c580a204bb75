// Small charts, drawn as SVG. Values may be null: there was nothing then, and the line has a gap.

import { h, put, svg } from "./dom.js";

const WIDE = 360;
const HIGH = 120;
const LEFT = 44;
const BELOW = 18;
const ABOVE = 8;

/** Lines over time. `series` are {label, values, kind}; `at` the time of each place, as text; `format` a value as text. */
export function lines({ title, at, series, format, area = false }) {
  const top = nice(Math.max(0, ...series.flatMap((one) => one.values.filter((value) => value !== null))));
  const x = (index) => LEFT + ((WIDE - LEFT - 6) * index) / Math.max(1, at.length - 1);
  const y = (value) => HIGH - BELOW - ((HIGH - BELOW - ABOVE) * value) / top;
  const readout = h("output", { class: "readout" });
  const cursor = svg("line", { class: "cursor", x1: 0, x2: 0, y1: ABOVE, y2: HIGH - BELOW, visibility: "hidden" });
  const told = (index) => `${at[index]} · ${series.map((one) => format(one.values[index])).join(" / ")}`;
  const rest = () => {
    readout.textContent = told(at.length - 1);
    cursor.setAttribute("visibility", "hidden");
  };
  const point = (event) => {
    const box = drawing.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * WIDE;
    const index = Math.max(0, Math.min(at.length - 1, Math.round(((place - LEFT) / (WIDE - LEFT - 6)) * (at.length - 1))));
    readout.textContent = told(index);
    cursor.setAttribute("x1", x(index));
    cursor.setAttribute("x2", x(index));
    cursor.setAttribute("visibility", "visible");
  };
  const grid = [0, top / 2, top].map((value) => [
    svg("line", { class: "grid", x1: LEFT, x2: WIDE - 6, y1: y(value), y2: y(value) }),
    svg("text", { x: LEFT - 6, y: y(value) + 3.5, "text-anchor": "end" }, format(value)),
  ]);
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `${title}: ${told(at.length - 1)}` },
    grid,
    svg("text", { x: LEFT, y: HIGH - 4 }, at[0]),
    svg("text", { x: WIDE - 6, y: HIGH - 4, "text-anchor": "end" }, at[at.length - 1]),
    series.map((one) => traced(one, x, y, area)),
    cursor,
  );
  drawing.addEventListener("pointermove", point);
  drawing.addEventListener("pointerleave", rest);
  rest();
  const legend = series.length > 1 && series.map((one) => h("span", { class: `key ${one.kind}` }, one.label));
  return h("figure", { class: "chart" }, h("figcaption", {}, h("strong", {}, title), h("span", { class: "legend" }, legend || null), readout), drawing);
}

function traced({ values, kind }, x, y, area) {
  const runs = [];
  values.forEach((value, index) => {
    if (value === null) return;
    const last = runs.at(-1);
    if (last && last.at(-1)[0] === index - 1) last.push([index, value]);
    else runs.push([[index, value]]);
  });
  return runs.map((run) => {
    const path = run.map(([index, value], place) => `${place ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    if (run.length === 1) return svg("circle", { class: `dot ${kind}`, cx: x(run[0][0]), cy: y(run[0][1]), r: 2 });
    const under = `${path}L${x(run.at(-1)[0]).toFixed(1)} ${y(0)}L${x(run[0][0]).toFixed(1)} ${y(0)}Z`;
    return [area && svg("path", { class: `under ${kind}`, d: under }), svg("path", { class: `line ${kind}`, d: path })];
  });
}

/** Amounts beside their names, longest first; `rows` are [name, amount, text]. */
export function bars(title, rows) {
  const most = Math.max(1, ...rows.map(([, amount]) => amount));
  const bar = (amount) =>
    svg(
      "svg",
      { class: "bar", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": true },
      svg("rect", { class: "track", width: 100, height: 6 }),
      svg("rect", { class: "fill", width: (100 * amount) / most, height: 6 }),
    );
  const line = ([name, amount, text]) => h("li", {}, h("span", { class: "name" }, name), bar(amount), h("span", { class: "num" }, text ?? String(amount)));
  return h("ul", { class: "bars", "aria-label": title }, rows.map(line));
}

/** Stretches of time under each other; `rows` are {name, kind, begin, end, text} in milliseconds of `total`. */
export function waterfall(title, rows, total) {
  const scale = (value) => (1000 * value) / Math.max(total, 0.001);
  const line = ({ name, kind, begin, end, text }) =>
    h(
      "li",
      {},
      h("span", { class: "name" }, name),
      svg(
        "svg",
        { class: "stretch", viewBox: "0 0 1000 10", preserveAspectRatio: "none", "aria-hidden": true },
        svg("rect", { class: "track", width: 1000, height: 10 }),
        svg("rect", { class: `fill ${kind}`, x: scale(begin), width: Math.max(3, scale(end - begin)), height: 10 }),
      ),
      h("span", { class: "num" }, text),
    );
  return h("ul", { class: "bars waterfall", "aria-label": title }, rows.map(line));
}

/** How much of something is in use: one box for each place, up to a number; beyond, a bar. */
export function slots(used, limit, label) {
  if (limit > 16 || limit < 1) return put(h("meter", { max: Math.max(1, limit), value: used, "aria-label": label }), `${used}/${limit}`);
  const boxes = Array.from({ length: limit }, (_, index) => svg("rect", { class: index < used ? "fill" : "track", x: index * 11, width: 9, height: 9, rx: 2 }));
  return svg("svg", { class: "slots", viewBox: `0 0 ${limit * 11} 9`, width: limit * 11, height: 9, role: "img", "aria-label": label }, boxes);
}

/** The next round number at or above a value. */
function nice(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}
