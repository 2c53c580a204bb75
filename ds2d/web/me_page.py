"""The page at /me: a field for a key, and what `/v1/usage` says about it.

Rule: text nodes only, no inline script, nothing from elsewhere; the key stays in the page's memory.
"""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>ds2d: my key</title>
<h1>My key</h1>
<form id="ask">
  <label>API key <input id="key" type="password" autocomplete="off" required></label>
  <button>Show</button>
</form>
<p id="problem" role="alert"></p>
<dl id="report"></dl>
<script src="me.js"></script>
</html>
"""

SCRIPT = """"use strict";
const report = document.getElementById("report");
const problem = document.getElementById("problem");

function add(name, value) {
  const term = document.createElement("dt");
  const text = document.createElement("dd");
  term.textContent = name;
  text.textContent = value;
  report.append(term, text);
}

function show(usage) {
  add("Key", usage.key);
  add("Models", usage.models.join(", ") || "none");
  if (usage.expires_at) add("Expires", usage.expires_at);
  for (const [name, used] of Object.entries(usage.used)) {
    const parts = used.prompt_tokens + " prompt, " + used.completion_tokens + " completion";
    add("Used (" + name + ")", used.total_tokens + " tokens: " + parts);
  }
  for (const quota of usage.quota.limits) {
    const renews = usage.quota.renews_at ? ", renews " + usage.quota.renews_at : "";
    add("Quota: " + quota.kind, quota.used + " of " + quota.limit + renews);
  }
  for (const [name, left] of Object.entries(usage.rate_limits)) {
    add("Limit: " + name, left.remaining + " of " + left.limit + " a minute are left");
  }
  for (const one of usage.recent_errors) {
    add(one.began_at, one.model + ": " + one.state + ", " + one.cause + " (" + one.request_id + ")");
  }
}

document.getElementById("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  report.replaceChildren();
  problem.textContent = "";
  try {
    const key = document.getElementById("key").value;
    const reply = await fetch("v1/usage", { headers: { Authorization: "Bearer " + key } });
    const body = await reply.json();
    if (reply.ok) show(body);
    else problem.textContent = body.error.message;
  } catch (error) {
    problem.textContent = "The gateway did not answer.";
  }
});
"""
