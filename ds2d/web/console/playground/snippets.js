// A request as a program: for a shell, for Python, for JavaScript. The key is named, never shown.

import { BASE } from "../shared/api.js";
import { h } from "../shared/dom.js";
import { code } from "../shared/ui.js";

export function snippets(path, body, headers) {
  return h("div", { class: "stack" }, code(curl(path, body, headers), "curl"), code(python(path, body, headers), "Python"), code(javascript(path, body, headers), "JavaScript"));
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const whole = (value) => JSON.stringify(value, null, 2);

function curl(path, body, headers) {
  const more = Object.entries(headers).map(([name, value]) => ` \\\n  -H ${quoted(`${name}: ${value}`)}`);
  return `curl -N ${new URL(path, BASE)} \\
  -H "Authorization: Bearer $DS2D_KEY" \\
  -H 'Content-Type: application/json'${more.join("")} \\
  -d ${quoted(whole(body))}`;
}

/** JSON as Python writes it. */
function literal(value, indent = "") {
  const inner = `${indent}    `;
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return value.length ? `[\n${value.map((one) => `${inner}${literal(one, inner)},\n`).join("")}${indent}]` : "[]";
  if (typeof value === "object") {
    const pairs = Object.entries(value).filter(([, one]) => one !== undefined);
    return pairs.length ? `{\n${pairs.map(([name, one]) => `${inner}${JSON.stringify(name)}: ${literal(one, inner)},\n`).join("")}${indent}}` : "{}";
  }
  return JSON.stringify(value);
}

const KNOWN = new Set(["model", "messages", "prompt", "stream", "stream_options", "temperature", "max_tokens", "tools"]);

function python(path, body, headers) {
  const names = Object.entries(body).filter(([name]) => KNOWN.has(name));
  const rest = Object.fromEntries(Object.entries(body).filter(([name]) => !KNOWN.has(name)));
  const chat = path.endsWith("chat/completions");
  const lines = names.map(([name, value]) => `    ${name}=${literal(value, "    ")},`);
  if (Object.keys(rest).length) lines.push(`    extra_body=${literal(rest, "    ")},`);
  if (Object.keys(headers).length) lines.push(`    extra_headers=${literal(headers, "    ")},`);
  return `import os
from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(String(new URL("v1", BASE)))}, api_key=os.environ["DS2D_KEY"])
stream = client.${chat ? "chat.completions" : "completions"}.create(
${lines.join("\n")}
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].${chat ? "delta.content" : "text"} or "", end="", flush=True)`;
}

function javascript(path, body, headers) {
  const call = path.endsWith("chat/completions") ? "chat.completions" : "completions";
  const piece = call === "completions" ? "text" : "delta?.content";
  const more = Object.keys(headers).length ? `, { headers: ${JSON.stringify(headers)} }` : "";
  return `import OpenAI from "openai";

const client = new OpenAI({ baseURL: ${JSON.stringify(String(new URL("v1", BASE)))}, apiKey: process.env.DS2D_KEY });
const stream = await client.${call}.create(${whole(body)}${more});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.${piece} ?? "");`;
}
