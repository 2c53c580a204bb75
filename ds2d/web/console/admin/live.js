// The one stream that feeds all live parts: a snapshot, then what changes. Closed while nobody looks at the page.

import { events } from "../shared/sse.js";
import { Store } from "../shared/store.js";
import { session, stream } from "./session.js";

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30000;

/** Topic to name to value, and `connected`. */
export const live = new Store({ connected: false, queue: {}, accounts: {}, requests: {}, upstreams: {}, config: {}, series: {} });

let last = "";
let running = null;

/** Begin, and go on until the login ends. */
export function follow() {
  session.watch((token) => (token ? begin() : end()));
  document.addEventListener("visibilitychange", () => (document.hidden ? end() : session.value && begin()));
}

function end() {
  running?.abort();
  running = null;
}

async function begin() {
  if (running || document.hidden) return;
  const mine = (running = new AbortController());
  let wait = FIRST_WAIT_MS;
  while (running === mine && session.value) {
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const response = await stream("GET", "admin/events", { headers, signal: mine.signal });
      wait = FIRST_WAIT_MS;
      tell({ connected: true });
      for await (const event of events(response)) take(event);
    } catch {
      // it went away: come back
    }
    if (running !== mine) return;
    tell({ connected: false });
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(LONGEST_WAIT_MS, wait * 2);
  }
}

function tell(changed) {
  Object.assign(live.value, changed);
  live.touch();
}

function take({ event, data, id }) {
  last = id;
  const state = JSON.parse(data);
  if (event === "snapshot") tell(state);
  else tell(Object.fromEntries(Object.entries(state).map(([topic, changed]) => [topic, merged(live.value[topic] ?? {}, changed)])));
}

function merged(old, changed) {
  const made = { ...old, ...changed };
  for (const [name, value] of Object.entries(changed)) if (value === null) delete made[name];
  return made;
}
