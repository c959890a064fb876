/** The panel of one dispatch: how it stands, what it is about, its life and its steps. */

import { dispatchPath } from "./api.js";
import { chain, earlier } from "./chain.js";
import { resend } from "./compose.js";
import { shown } from "./content.js";
import { textOf } from "./conversation.js";
import { absolute, copy, curl } from "./copy.js";
import { action, el } from "./dom.js";
import { clock, count, shortId, stateSign, usd } from "./format.js";
import { pairs } from "./pairs.js";
import { steps } from "./steps.js";
import { timeline } from "./timeline.js";
import { operate, VERBS } from "./verbs.js";

/**
 * The parts of the panel. `panel` has `record`, `plan`, `past`, `said`, `decision`, `unfolded`,
 * `model`, `refresh()` and `open(kind)(id)`.
 */
export function dispatchPanel(panel) {
  const { record } = panel;
  return [
    lead(record),
    record.error
      ? el("p", { className: "error" }, el("b", {}, record.stage ?? "ended"), ` ${record.error}`)
      : null,
    el("div", { className: "buttons" }, ...buttons(panel)),
    ...(record.state === "parked" ? toApprove(panel) : []),
    ...(record.state === "parked" ? [] : chain(record, panel.plan)),
    ...(record.state === "parked" ? [] : [...eventText(record), ...answer(record)]),
    ...(panel.said ? [el("h3", {}, "Says"), panel.said] : []),
    ...failures(record),
    facts(record),
    ...steps(record, panel.unfolded),
    ...(record.state === "parked" ? [] : earlier(record)),
    ...deliveries(record),
    el("h3", {}, "Timeline"),
    timeline(record, [...(panel.past ?? []), ...panel.model.eventsOf(record.dispatch_id)]),
  ].filter(Boolean);
}

function lead(record) {
  return el(
    "p",
    { className: "lead" },
    el("span", { className: "badge", data: { state: record.state } }, `${stateSign(record.state)} ${record.state}`),
    record.verification === "timeout_fallback" ? el("span", { className: "waiting" }, " unverified") : null,
    record.waiting_for ? el("span", { className: "waiting" }, ` waits for: ${record.waiting_for}`) : null,
  );
}

function buttons(panel) {
  const { record } = panel;
  const id = record.dispatch_id;
  const path = dispatchPath(id, shown() ? "?content=1" : "");
  // What waits for a person has its own form, with room for a comment.
  const verbs = record.state === "parked" ? [] : (VERBS[record.state] ?? []);
  return [
    ...verbs.map(([word, verb]) =>
      action(word, async () => {
        if (await operate(id, verb)) panel.refresh();
      }),
    ),
    shown() ? action("Edit and resend", () => resend(record, panel.open("dispatch"))) : null,
    !record.agent.startsWith("human:") ? action("Its agent", async () => panel.open("agent")(record.agent)) : null,
    record.session ? action("Its session", async () => panel.open("session")(record.session)) : null,
    action("Copy id", () => copy(id, "The id is")),
    action("Copy link", () => copy(absolute(`#/dispatch/${encodeURIComponent(id)}`), "The link is")),
    action("Copy as curl", () => copy(curl(path), "The command is")),
  ];
}

/** What is to be decided, what was said before, and the decision with its comment. */
function toApprove(panel) {
  const { record } = panel;
  return [
    ...chain(record, panel.plan),
    el("h3", {}, "What is to be approved"),
    el("pre", { className: "asked" }, textOf(record) ?? "(hidden)"),
    ...earlier(record),
    panel.decision,
  ];
}

/** The form that decides about a parked dispatch; kept while the panel is drawn anew. */
export function decisionForm(dispatchId, decided) {
  const comment = el("input", { type: "text", maxLength: 500, autocomplete: "off" });
  const decide = (verb) => async () => {
    const words = comment.value.trim();
    if (verb === "reject" && !words) {
      comment.required = true;
      comment.reportValidity();
      return;
    }
    if (await operate(dispatchId, verb, words)) decided();
  };
  return el(
    "div",
    { className: "decision" },
    el("label", {}, "Comment, kept with the decision; needed to reject", comment),
    el(
      "div",
      { className: "buttons" },
      action("Approve", decide("approve"), { className: "yes" }),
      action("Reject", decide("reject"), { className: "no" }),
    ),
  );
}

function eventText(record) {
  const text = textOf(record);
  return text === null ? [] : [el("h3", {}, "Event"), el("pre", {}, text)];
}

function answer(record) {
  if (record.answer === undefined || !shown()) return [];
  const text = typeof record.answer === "string" ? record.answer : JSON.stringify(record.answer, null, 2);
  return [el("h3", {}, "Answer"), el("pre", { className: "answer" }, text ?? "")];
}

/** What went wrong in each attempt; messages and tracebacks are content. */
function failures(record) {
  if (!record.failures?.length) return [];
  return [
    el("h3", {}, "Failures"),
    ...record.failures.map((one) => {
      const what = [one.stage, one.kind, one.place].filter(Boolean).join(" · ");
      const text = shown() ? [one.message, one.traceback].filter(Boolean).join("\n\n") : "";
      return el(
        "div",
        { className: "failure" },
        el("p", {}, el("b", {}, `Attempt ${one.attempt}`), ` ${what}: ${one.reason ?? ""}`),
        text ? el("pre", {}, text) : null,
      );
    }),
  ];
}

function facts(record) {
  const tokens = record.tokens_in || record.tokens_out;
  return pairs([
    ["id", record.dispatch_id],
    ["event", record.event_id],
    ["source", record.source],
    ["sent by", record.sent_by],
    ["made from", link(record.resent_from)],
    ["sent again as", [record.resent_as ?? []].flat().map(link)],
    ["session", record.session],
    ["model", record.model],
    ["accepted", clock(record.accepted_at)],
    ["attempt", `${count(record.attempt)}${record.generation > 1 ? `, generation ${record.generation}` : ""}`],
    ["tokens", tokens ? `${count(record.tokens_in)} in, ${count(record.tokens_out)} out` : null],
    ["cost", record.usd ? usd(record.usd) : null],
    ["priority", record.priority],
    ["decided by", record.decided_by],
  ]);
}

function link(id) {
  return id ? el("a", { href: `#/dispatch/${encodeURIComponent(id)}`, className: "id" }, shortId(id)) : null;
}

function deliveries(record) {
  if (!record.deliveries?.length) return [];
  return [
    el("h3", {}, "Receivers"),
    el(
      "ul",
      { className: "plain-list" },
      ...record.deliveries.map((one) =>
        el(
          "li",
          {},
          el("b", {}, one.name),
          ` ${one.verification === "timeout_fallback" ? "✕ unverified" : one.verification ? `✓ ${one.verification}` : "○ open"}`,
          el("span", { className: "soft" }, ` ${count(one.tries)} tries${one.reason ? `, ${one.reason}` : ""}`),
        ),
      ),
    ),
  ];
}
