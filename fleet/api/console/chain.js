/** A chain as a picture: its stages in order, who decides in each, and where a dispatch stands. */

import { el } from "./dom.js";
import { duration, stateSign } from "./format.js";
import { shown } from "./content.js";

const VERDICTS = { approve: "approved", reject: "rejected", revise: "asked to revise" };

/**
 * The stages as boxes with arrows. `plan` is the chain as configured; with a `record` of one of its
 * dispatches, each stage shows what it ended with, and the dispatch's own is marked.
 */
export function flow(plan, record = null) {
  const earlier = record?.earlier ?? [];
  const at = record?.chain_stage ?? 0;
  return el(
    "ol",
    { className: "flow", "aria-label": `Stages of the chain ${plan.name}` },
    ...plan.stages.map((stage, place) => box(stage, place + 1, at, earlier, record)),
  );
}

function box(stage, number, at, earlier, record) {
  const ends = earlier.filter((one) => one.stage === number);
  const current = number === at && record;
  const state = current ? record.state : ends.length ? (isBad(ends.at(-1)) ? "dead" : "completed") : "";
  const who = stage.person
    ? el("p", { className: "who-decides" }, el("b", {}, `◆ ${stage.person}`), " decides")
    : el("p", { className: "who-decides" }, ...stage.members.map((name) => member(name, ends)));
  const rule = stage.person
    ? stage.deadline_s && `within ${duration(stage.deadline_s)}`
    : stage.members.length > 1 && `${stage.quorum} of ${stage.members.length} approve`;
  return el(
    "li",
    { data: { state }, "aria-current": current ? "step" : undefined },
    el("span", { className: "stage-number" }, `${number}`),
    stage.person || stage.members.length === 1 ? null : el("b", {}, stage.name),
    who,
    rule ? el("p", { className: "soft" }, rule) : null,
    current ? el("p", { className: "soft" }, `${stateSign(record.state)} ${record.state}`) : null,
  );
}

function member(name, ends) {
  const end = ends.findLast((one) => one.agent === name);
  const word = end ? ` ${isBad(end) ? "✕" : "✓"} ${verdict(end)}` : "";
  return el("span", { className: "member" }, el("b", {}, name), word);
}

/** What the stages before said, in full. */
export function earlier(record) {
  const ends = record.earlier ?? [];
  if (!ends.length) return [];
  return [
    el("h3", {}, "What the stages before said"),
    el("ol", { className: "stages" }, ...ends.map(stage)),
  ];
}

/** The place of a dispatch in its chain, as a picture where the plan is known. */
export function chain(record, plan) {
  if (!record.chain) return [];
  const state = record.chain_state ? `, ${record.chain_state}` : "";
  const reason = record.chain_reason ? `: ${record.chain_reason}` : "";
  return [
    el("h3", {}, `Chain ${record.chain}`),
    el("p", { className: "soft flush" }, `stage ${record.chain_stage} of ${record.chain_stages}${state}${reason}`),
    plan ? flow(plan, record) : null,
  ].filter(Boolean);
}

function stage(one) {
  const bad = isBad(one);
  const group = one.stage_name === one.agent ? "" : ` for ${one.stage_name}`;
  const round = one.round > 1 ? `, round ${one.round}` : "";
  return el(
    "li",
    {},
    el("span", { className: "badge", data: { state: bad ? "dead" : "completed" } }, `${stateSign(bad ? "dead" : "completed")} ${verdict(one)}`),
    ` ${one.stage}. ${one.agent}${group}${round}`,
    shown() && one.answer ? el("pre", {}, String(one.answer)) : null,
  );
}

function isBad(one) {
  return one.verdict === "reject" || (one.state !== "completed" && !one.verdict);
}

function verdict(one) {
  return VERDICTS[one.verdict] ?? one.verdict ?? one.state;
}
