// The operator's login. Rule: its token lives in memory; it outlives a reload only where the operator chose so, in this tab.

import { ask, open } from "../shared/api.js";
import { tab } from "../shared/keep.js";
import { Store } from "../shared/store.js";

export const session = new Store(tab.get("ds2d.admin"));

export async function logIn(key, stay) {
  const answer = await ask("POST", "admin/login", { body: { admin_key: key } });
  renew(answer.token, stay);
}

export function logOut() {
  tab.set("ds2d.admin", null);
  session.set(null);
}

/** Go on with another token, kept as the old one was. */
export function renew(token, stay = tab.get("ds2d.admin") !== null) {
  if (stay) tab.set("ds2d.admin", token);
  session.set(token);
}

/** Ask the admin API. `generation` makes a change count only if the config is still that one. */
export async function call(method, path, options = {}) {
  return guarded(() => ask(method, path, withLogin(options)));
}

/** The same for an answer that is read as it comes. */
export async function stream(method, path, options = {}) {
  return guarded(() => open(method, path, withLogin(options)));
}

function withLogin({ generation, headers, ...options }) {
  const match = generation === undefined ? {} : { "If-Match": `"${generation}"` };
  return { ...options, headers: { ...headers, ...match }, credential: session.value };
}

async function guarded(act) {
  try {
    return await act();
  } catch (error) {
    if (error.status === 401) logOut();
    throw error;
  }
}
