/** One session as a conversation: what was sent, what was answered, and by whom. */

import { dispatchPath } from "./api.js";
import { el, action } from "./dom.js";
import { clock, duration, shortId, stateSign, usd } from "./format.js";
import { getWithContent, shown } from "./content.js";

/** So many of the newest dispatches are read whole; those before are a click away. */
const WHOLE = 30;

/** Fetch a session's newest dispatches, oldest first, each with its event and answer. */
export async function fetchConversation(session, most = WHOLE) {
  const page = await getWithContent("dispatches", { session, limit: most });
  const rows = [...page.dispatches].reverse();
  const whole = await Promise.all(
    rows.map((row) => getWithContent(dispatchPath(row.dispatch_id)).catch(() => row)),
  );
  return { turns: whole, more: Boolean(page.cursor), most };
}

/** The parts of the panel; `open(id)` shows a dispatch, `reply()` writes to the session. */
export function conversation(found, { open, reply, older }) {
  if (!found) return [el("p", { className: "hint" }, "Asking the ledger ...")];
  if (!found.turns.length) return [el("p", { className: "hint" }, "Nothing of this session is kept any more.")];
  const bubbles = [];
  let last = null;
  for (const turn of found.turns) {
    // An event for several agents is said once.
    if (turn.event_id !== last) bubbles.push(asked(turn));
    last = turn.event_id;
    bubbles.push(answered(turn, open));
  }
  return [
    found.more ? el("p", {}, action("Show earlier turns", async () => older(2 * found.most))) : null,
    el("ol", { className: "bubbles", "aria-label": "The conversation" }, ...bubbles),
    el("div", { className: "decision" }, el("div", { className: "buttons" }, action("Reply", async () => reply(found.turns.at(-1)), { className: "yes" }))),
  ].filter(Boolean);
}

function asked(turn) {
  const said = textOf(turn);
  return el(
    "li",
    { className: "bubble from" },
    el("p", { className: "meta" }, `${turn.source ?? "an event"} · ${clock(turn.accepted_at)}`),
    el("p", { className: "words" }, said ?? hidden()),
  );
}

function answered(turn, open) {
  const facts = [
    turn.agent,
    turn.elapsed_s === undefined ? null : duration(turn.elapsed_s),
    turn.usd ? usd(turn.usd) : null,
  ].filter(Boolean);
  const words =
    typeof turn.answer === "string" && shown()
      ? turn.answer
      : turn.state === "completed"
        ? hidden()
        : (turn.error ?? turn.waiting_for ?? "");
  const link = el("a", { href: `#/dispatch/${encodeURIComponent(turn.dispatch_id)}`, className: "id" }, shortId(turn.dispatch_id));
  link.addEventListener("click", (event) => {
    event.preventDefault();
    open(turn.dispatch_id);
  });
  return el(
    "li",
    { className: "bubble to" },
    el(
      "p",
      { className: "meta" },
      el("span", { className: "badge", data: { state: turn.state } }, `${stateSign(turn.state)} ${turn.state}`),
      ` ${facts.join(" · ")} `,
      link,
    ),
    words ? el("p", { className: "words" }, words) : null,
  );
}

function hidden() {
  return shown() ? "(no text)" : "(hidden)";
}

/** The text of a record's event, where it may be seen. */
export function textOf(record) {
  const event = record.event;
  if (!event || typeof event !== "object") return null;
  const data = event.data ?? event;
  if (typeof data === "string") return data;
  return data.text ?? JSON.stringify(data, null, 2);
}
