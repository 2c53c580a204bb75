// Elements made of data. Rule: text becomes text nodes, never markup; there is no other way to make elements here.

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "disabled", "selected", "open", "hidden", "readOnly", "indeterminate"]);

/** An element. `props`: attributes, the properties above, `on` for listeners; children: text, nodes, lists; null is nothing. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for drawings. */
export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

/** Put these children in the place of those that are there. */
export function put(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value == null || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (PROPERTIES.has(name)) node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  put(node, ...children);
  if (props?.value !== undefined && node.tagName === "SELECT") node.value = props.value; // its options are there only now
  return node;
}

/** A name that nothing else has. `crypto.randomUUID` would be shorter, but pages over plain HTTP from another host lack it. */
export function unique() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A part of a page that knows when it goes: `start` builds it, what it began with `signal` ends with it. */
export class Part extends HTMLElement {
  #leaving = new AbortController();

  get signal() {
    return this.#leaving.signal;
  }

  connectedCallback() {
    if (this.#leaving.signal.aborted) this.#leaving = new AbortController();
    this.start();
  }

  disconnectedCallback() {
    this.#leaving.abort();
  }

  start() {}

  /** Do something now and again, while this part is there and the page is looked at. */
  every(milliseconds, act) {
    const timer = setInterval(() => document.hidden || act(), milliseconds);
    this.signal.addEventListener("abort", () => clearInterval(timer));
  }
}
