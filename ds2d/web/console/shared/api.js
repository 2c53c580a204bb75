// The one way to ask the daemon. Rule: same origin, no cookies; the credential is given with each call.

/** Where this daemon's paths begin, whatever stands before them. */
export const BASE = new URL("../../", import.meta.url);

/** What the daemon refused, or that it did not answer (status 0). */
export class Failure extends Error {
  constructor(status, message, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

/** Ask, and give back the response once its status is a good one. */
export async function open(method, path, { body, credential, headers, signal } = {}) {
  const sent = { ...headers };
  if (credential) sent.Authorization = `Bearer ${credential}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(new URL(path, BASE), {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "omit",
      cache: "no-store",
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, "");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

/** Ask, and give back the JSON of the answer. */
export async function ask(method, path, options) {
  const response = await open(method, path, options);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

async function failure(response) {
  const text = await response.text().catch(() => "");
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // not ours: a proxy's page, perhaps
  }
  const message = body?.detail ?? body?.error?.message ?? text.slice(0, 300);
  return new Failure(response.status, String(message), body);
}
