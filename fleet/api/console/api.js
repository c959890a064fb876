/** Calls of the public API. A refusal is a Problem whose message is the API's own sentence. */

const TIMEOUT_MS = 15000;
const TOKEN = "fleet-token";

/** What the API refused, or why it could not be asked (`status` 0). */
export class Problem extends Error {
  constructor(status, detail, type = "") {
    super(detail);
    this.status = status;
    this.type = type;
  }

  /** True when the API has no such route: it is of another version. */
  get unserved() {
    return this.status === 404 && this.type.endsWith("no-route");
  }
}

let askForToken = null;
let asking = null;
let declined = false;

/** `ask` returns a promise of a token; it is called when the API wants one. */
export function onTokenNeeded(ask) {
  askForToken = ask;
}

/** Forget or keep the token: for this tab and its life only, and never in an address. */
export function keepToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
}

/** The headers that say who we are. */
export function credentials() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** Ask the person for a token, once however many calls were refused at the same time. */
export async function needToken() {
  if (!askForToken || declined) return false;
  asking ??= askForToken().finally(() => {
    asking = null;
  });
  const token = await asking;
  declined = !token;
  if (token) keepToken(token);
  return Boolean(token);
}

/** `GET path`; `query` values that are empty are left out, lists are repeated. */
export function get(path, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) if (one !== "" && one != null) search.append(name, one);
  }
  const text = search.toString();
  return call("GET", text ? `${path}?${text}` : path);
}

/** `POST path` with a JSON body where there is one. */
export function post(path, body) {
  return call("POST", path, body);
}

/** `DELETE path`. */
export function remove(path) {
  return call("DELETE", path);
}

/** `POST path` with an event, accepted once however often the request is repeated with this key. */
export function sendEvent(path, event, key) {
  return call("POST", path, event, { "Idempotency-Key": key });
}

/** The path of one dispatch, with what follows its id. */
export function dispatchPath(id, more = "") {
  return `dispatches/${encodeURIComponent(id)}${more}`;
}

async function call(method, path, body, more = {}, again = true) {
  const headers = { Accept: "application/json", ...credentials(), ...more };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
      cache: "no-store",
    });
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new Problem(0, late ? "The API did not answer in time." : "The API cannot be reached.");
  }
  if (answer.status === 401 && again && (await needToken())) return call(method, path, body, more, false);
  const value = await answer.json().catch(() => null);
  // A health document comes with 503 when the fleet is down, and is an answer all the same.
  if (answer.ok || (value && path === "health")) return value;
  throw new Problem(answer.status, value?.detail ?? `The API answered ${answer.status}.`, value?.type);
}
