/** Sending an event: a new one, a reply in a session, or an old one edited. */

import { dispatchPath, get, sendEvent } from "./api.js";
import { el, prose } from "./dom.js";
import { count, shortId } from "./format.js";
import { done, failed } from "./dialogs.js";

let known = null;

/** Where events can be sent to, the lanes and the chains; empty where the API does not say. */
export async function targets() {
  known ??= get("targets").catch(() => {
    known = null;
    return { targets: [], lanes: {}, chains: [] };
  });
  return known;
}

/** The plan of the chain of this name, or null. */
export async function chainPlan(name) {
  const { chains } = await targets();
  return chains.find((chain) => chain.name === name) ?? null;
}

function options(id, values) {
  return el("datalist", { id }, ...values.map((value) => el("option", { value })));
}

function field(caption, input, more = null) {
  return el("label", {}, caption, input, more);
}

/**
 * Ask for an event and send it; `open(id)` is called with its first dispatch. `draft` fills the
 * fields: `to`, `session`, `lane`, `text`, and `from`, the record that is edited.
 */
export async function compose(open, draft = {}) {
  const { targets: places, lanes } = await targets();
  const to = el("input", { name: "to", value: draft.to ?? "", autocomplete: "off", placeholder: "the fleet's route decides" });
  to.setAttribute("list", "compose-targets");
  const session = el("input", { name: "session", value: draft.session ?? "", maxLength: 256, autocomplete: "off" });
  const lane = el(
    "select",
    { name: "lane" },
    el("option", { value: "" }, "as the fleet says"),
    ...Object.entries(lanes)
      .sort((one, other) => other[1] - one[1])
      .map(([name, priority]) => el("option", { value: name, selected: name === draft.lane }, `${name} (${priority})`)),
  );
  const text = el("textarea", { name: "text", rows: 8, value: draft.text ?? "", required: true });
  const problem = el("p", { className: "error", role: "alert", hidden: true });
  const send = el("button", { type: "submit", className: "yes" }, draft.from ? "Send the edited event" : "Send");
  const leave = el("button", { type: "button" }, "Leave it");
  const title = draft.from ? `Edit and resend ${shortId(draft.from.dispatch_id)}` : "Send an event";
  const form = el(
    "form",
    { className: "compose" },
    el("h2", { id: "compose-title" }, title),
    draft.from
      ? el("p", { className: "soft" }, "A new event is made; the old one stays as it is.")
      : el("p", { className: "soft" }, ...prose("An agent, `@group`, `all` or `chain:NAME`; several with commas between them.")),
    field("To", to, options("compose-targets", places.map((one) => one.target))),
    el("div", { className: "side-by-side" }, field("Session", session), field("Lane", lane)),
    field("Text", text),
    problem,
    el("div", { className: "buttons" }, el("span", { className: "soft gap" }, "Ctrl-Enter sends"), leave, send),
  );
  const dialog = el("dialog", { className: "wide", "aria-labelledby": "compose-title" }, form);
  // One key for this dialog: an event whose answer was lost on the way is sent again, not twice.
  const key = randomKey();
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  leave.addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    send.disabled = true;
    problem.hidden = true;
    try {
      const sent = await submit(draft, { to, session, lane, text }, key);
      dialog.close();
      done(sent.words);
      if (sent.first) open(sent.first);
    } catch (error) {
      problem.hidden = false;
      problem.replaceChildren(...prose(error.message));
      send.disabled = false;
    }
  });
  const before = document.activeElement;
  dialog.addEventListener("close", () => {
    dialog.remove();
    before?.focus?.();
  });
  document.body.append(dialog);
  dialog.showModal();
  (to.value || draft.from ? text : to).focus();
}

async function submit(draft, fields, key) {
  const event = { text: fields.text.value };
  const named = fields.to.value.split(",").map((one) => one.trim()).filter(Boolean);
  if (named.length) event.to = named.length === 1 ? named[0] : named;
  if (fields.session.value.trim()) event.session = fields.session.value.trim();
  // An edited event keeps what is not named: a session that was taken away is.
  else if (draft.from) event.session = null;
  if (fields.lane.value) event.lane = fields.lane.value;
  else if (draft.priority !== undefined && draft.from) event.priority = draft.priority;
  const answer = await sent(draft, event, key);
  const number = answer.dispatches.length;
  return {
    words: `Sent: ${count(number)} ${number === 1 ? "dispatch" : "dispatches"}, ${answer.dispatches.map((one) => one.agent).slice(0, 5).join(", ")}.`,
    first: answer.dispatches[0]?.dispatch_id,
  };
}

/** An edited event is linked to the old one, where the API does that. */
async function sent(draft, event, key) {
  if (!draft.from) return sendEvent("events", event, key);
  try {
    return await sendEvent(dispatchPath(draft.from.dispatch_id, "/resend"), event, key);
  } catch (problem) {
    if (!problem.unserved) throw problem;
    return sendEvent("events", event, key);
  }
}

/** Edit the event of a dispatch and send it as a new one. */
export async function resend(record, open) {
  try {
    const whole = await get(dispatchPath(record.dispatch_id), { content: "1" });
    const data = typeof whole.event === "object" ? (whole.event.data ?? whole.event) : {};
    const to = record.chain ? `chain:${record.chain}` : (data.to ?? record.agent);
    await compose(open, {
      from: record,
      to: Array.isArray(to) ? to.join(", ") : to,
      session: record.session,
      lane: data.lane,
      priority: record.priority,
      text: typeof data === "string" ? data : (data.text ?? ""),
    });
  } catch (problem) {
    failed(problem);
  }
}

/** Random also where the page does not come over TLS. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `console-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
