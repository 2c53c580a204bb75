// What this browser remembers. Rule: it may refuse to (private windows, full disks), and nothing depends on it.

function kept(storage, name) {
  try {
    return JSON.parse(storage().getItem(name));
  } catch {
    return null;
  }
}

function keep(storage, name, value) {
  try {
    if (value == null) storage().removeItem(name);
    else storage().setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

const lasting = () => localStorage;
const here = () => sessionStorage;

/** For good: choices and conversations. */
export const browser = { get: (name) => kept(lasting, name), set: (name, value) => keep(lasting, name, value) };

/** Until the tab is closed: credentials. */
export const tab = { get: (name) => kept(here, name), set: (name, value) => keep(here, name, value) };
