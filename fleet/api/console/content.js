/**
 * Whether texts of events and answers are shown, in every list and panel of this page.
 *
 * They are asked for only while they are shown. A person can hide them, for all visits; an API that
 * shows this caller none is asked without them.
 */

import { get, Problem } from "./api.js";

const HIDDEN = "fleet-content-hidden";
const listeners = [];
let denied = false;

/** True while texts are shown. */
export function shown() {
  return !denied && localStorage.getItem(HIDDEN) === null;
}

/** Show or hide texts. */
export function toggle() {
  denied = false;
  if (shown()) localStorage.setItem(HIDDEN, "1");
  else localStorage.removeItem(HIDDEN);
  for (const listener of listeners) listener();
}

/** Texts may be asked for again: the caller is another. */
export function allow() {
  denied = false;
}

/** `listener()` is called after each change. */
export function onChange(listener) {
  listeners.push(listener);
}

/** `GET path`, with content while it is shown and allowed. */
export async function getWithContent(path, query = {}) {
  if (!shown()) return get(path, query);
  try {
    return await get(path, { ...query, content: "1" });
  } catch (problem) {
    if (!(problem instanceof Problem) || problem.status !== 403) throw problem;
    const answer = await get(path, query);
    denied = true;
    for (const listener of listeners) listener();
    return answer;
  }
}
