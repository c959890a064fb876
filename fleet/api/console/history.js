/** The past of the bus, so that pictures, feed and timelines do not begin empty. */

import { credentials, get } from "./api.js";
import { parser } from "./bus.js";

/** How far back; less when so much happened that the bus does not replay it. */
const PAST_MS = [600_000, 60_000];
/** A reader of some agents never sees the newest entry of all: silence is the end too. */
const SILENCE_MS = 1000;

/**
 * Hand what the bus still holds to `take`, and answer the id behind which everything else comes;
 * an empty one where nobody can say it now.
 */
export async function loadHistory(take) {
  const health = await get("health").catch(() => null);
  const newest = health?.g1?.last_id;
  const oldest = health?.bus?.oldest_id;
  if (!newest || !oldest) return newest ?? "";
  for (const past of PAST_MS) {
    const wanted = `${Math.max(0, millis(newest) - past)}-0`;
    const start = before(wanted, oldest) ? oldest : wanted;
    const events = await replay(start, newest).catch(() => null);
    if (!events) continue;
    if (events.length) take(events);
    break;
  }
  return newest;
}

/** What the bus still holds of one dispatch: its attempts before the present one. */
export async function eventsOf(record) {
  const health = await get("health");
  const start = `${Date.parse(record.accepted_at) - 1}-0`;
  const agent = new URLSearchParams({ agent: record.agent });
  const events = await replay(start, health.g1?.last_id ?? "0-0", `?${agent}`);
  return (events ?? []).filter((event) => event.dispatch_id === record.dispatch_id);
}

/** The events after `start` up to `end`, or null when the bus cannot replay them all. */
async function replay(start, end, query = "") {
  const aborter = new AbortController();
  let alarm = setTimeout(() => aborter.abort(), SILENCE_MS);
  const events = [];
  try {
    const answer = await fetch(`bus${query}`, {
      headers: { Accept: "text/event-stream", "Last-Event-ID": start, ...credentials() },
      signal: aborter.signal,
      cache: "no-store",
    });
    if (!answer.ok) return null;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const parse = parser(() => {});
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return events;
      clearTimeout(alarm);
      alarm = setTimeout(() => aborter.abort(), SILENCE_MS);
      for (const event of parse(value)) {
        if (event.type === "resync_required") return null;
        if (before(end, event.id)) return events;
        events.push(event);
        if (event.id === end) return events;
      }
    }
  } catch (error) {
    if (error.name === "AbortError") return events;
    throw error;
  } finally {
    clearTimeout(alarm);
    aborter.abort();
  }
}

function millis(id) {
  return Number(id.split("-")[0]);
}

/** True when the entry `one` comes before `other`. */
function before(one, other) {
  const [a, b] = [one, other].map((id) => id.split("-").map(Number));
  return a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]);
}
