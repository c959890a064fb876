/** What a person may do to dispatches: one, or many at once. */

import { dispatchPath, post } from "./api.js";
import { askComment, askReason, confirmed, done, failed } from "./dialogs.js";
import { count, shortId } from "./format.js";

/** What a person may do to a dispatch, by its state: [word, verb]. */
export const VERBS = {
  dead: [["Replay", "retry"]],
  parked: [
    ["Approve", "approve"],
    ["Reject", "reject"],
  ],
  queued: [["Cancel", "cancel"]],
  retrying: [
    ["Retry now", "retry"],
    ["Cancel", "cancel"],
  ],
  active: [["Cancel", "cancel"]],
};

/** What may be done to many at once: [word, verb, states]. */
export const BULK = [
  ["Replay", "retry", ["dead"]],
  ["Retry now", "retry", ["retrying"]],
  ["Cancel", "cancel", ["queued", "retrying", "active"]],
];

/**
 * Do it; true when the API agreed. `reason` is what a person has written beside the button; where
 * it is undefined, a dialog asks for it.
 */
export async function operate(dispatchId, verb, reason) {
  let body;
  if (verb !== "retry") {
    const given = reason ?? (await ask(verb, dispatchId));
    if (given === null) return false;
    body = given ? { reason: given } : undefined;
  }
  try {
    const { state } = await post(dispatchPath(dispatchId, `/${verb}`), body);
    done(`${shortId(dispatchId)} is ${state}.`);
    return true;
  } catch (problem) {
    failed(problem);
    return false;
  }
}

function ask(verb, dispatchId) {
  return verb === "approve" ? askComment(dispatchId) : askReason(verb, dispatchId);
}

/** Do it to each of these, oldest first, once a person has agreed. */
export async function operateAll(rows, word, verb) {
  const number = `${count(rows.length)} ${rows.length === 1 ? "dispatch" : "dispatches"}`;
  if (!rows.length || !(await confirmed(`${word} ${number}, oldest first?`, `${word} ${number}`))) {
    return false;
  }
  const body = verb === "cancel" ? { reason: "cancelled in the console, with others" } : undefined;
  let refused = null;
  let agreed = 0;
  for (const row of [...rows].reverse()) {
    try {
      await post(dispatchPath(row.dispatch_id, `/${verb}`), body);
      agreed += 1;
    } catch (problem) {
      refused = problem;
      if (!problem.status || problem.status >= 500) break;
    }
  }
  done(`${word}: ${count(agreed)} of ${number}.`);
  if (refused) failed(refused);
  return true;
}
