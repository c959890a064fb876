/** The life of a dispatch from top to bottom: waits, attempts, steps, the end. */

import { el } from "./dom.js";
import { between, clock, count, duration, stateSign } from "./format.js";

/**
 * A list of moments. The ledger's record is the truth; `events` of the bus, as far as this page has
 * seen them, add the attempts before the present one.
 */
export function timeline(record, events) {
  const moments = [
    moment(record.accepted_at, "→", "accepted", record.source ? `from ${record.source}` : ""),
    ...earlier(record, events),
    ...present(record),
  ];
  return el("ol", { className: "timeline" }, ...moments);
}

/** Attempts that are over: from the record where it holds them, else from the bus. */
function earlier(record, events) {
  const running = record.started_at && record.attempt;
  const attempts = new Map();
  for (const event of events) {
    if (!event.attempt || event.attempt >= running) continue;
    const attempt = attempts.get(event.attempt) ?? {};
    attempts.set(event.attempt, attempt);
    if (event.type === "dispatch_started") attempt.started_at = event.time;
    if (event.type === "dispatch_failed") Object.assign(attempt, event, { ended_at: event.time });
  }
  return [...attempts].flatMap(([number, attempt]) => [
    moment(attempt.started_at, "▶", `attempt ${number}`, "", steps(record, number)),
    attempt.ended_at
      ? moment(attempt.ended_at, "↻", `failed: ${attempt.stage}`, attempt.reason, [], "bad")
      : null,
  ]);
}

function present(record) {
  const moments = [];
  const since = record.state === "queued" ? (record.queued_at ?? record.accepted_at) : null;
  const started = record.started_at;
  const queued = record.queued_at ?? record.accepted_at;
  const again = record.generation > 1;
  const moved = moment(queued, "○", "queued again", `generation ${record.generation}`);
  const waits = !started || queued > started;
  if (again && !waits) moments.push(moved);
  if (started) {
    const waited = waits ? "" : `after ${duration(between(queued, started))}`;
    const note = [waited, record.holder ?? ""].filter(Boolean).join(", on ");
    const mine = steps(record, record.attempt);
    moments.push(moment(started, "▶", `attempt ${record.attempt}`, note, mine));
  }
  if (again && waits) moments.push(moved);
  if (record.state === "retrying") {
    moments.push(moment(record.retry_at, "↻", "next attempt", record.error ?? "", [], "next"));
  } else if (record.ended_at) {
    const took = between(record.accepted_at, record.ended_at);
    const level = record.state === "completed" ? "good" : "bad";
    const note = `${duration(took)} after it was accepted`;
    moments.push(moment(record.ended_at, stateSign(record.state), record.state, note, [], level));
  } else if (record.waiting_for) {
    moments.push(moment(since, stateSign(record.state), "waits", record.waiting_for, [], "next"));
  } else if (record.state === "active") {
    moments.push(moment(null, "▷", "running", "", [], "next"));
  }
  return moments;
}

function moment(at, sign, what, note, inner = [], level = "") {
  return el(
    "li",
    { data: { level } },
    el("span", { className: "sign-of", "aria-hidden": "true" }, sign),
    el("time", { dateTime: at ?? "" }, at ? clock(at, true) : "now"),
    el("b", {}, what),
    note ? el("span", { className: "note" }, note) : null,
    inner.length ? el("ul", { className: "steps" }, ...inner) : null,
  );
}

/** The steps of an attempt in a line; the panel has them whole. */
function steps(record, attempt) {
  const mine = record.steps.filter((step) => step.attempt === attempt);
  if (!mine.length) return [];
  const names = mine.map((step) => `${step.name} ${duration(step.elapsed_s)}`);
  return [el("li", {}, names.length > 6 ? `${count(names.length)} steps` : names.join(" → "))];
}
