/** Where a dispatch stands in its chain, and what the stages before it decided. */

import { el } from "./dom.js";
import { stateSign } from "./format.js";

const VERDICTS = { approve: "approved", reject: "rejected" };

/** The stages so far, with what was answered where `content` says so; nothing outside of a chain. */
export function chain(record, content) {
  if (!record.chain) return [];
  const place = `stage ${record.chain_stage} of ${record.chain_stages}`;
  const state = record.chain_state ? `, ${record.chain_state}` : "";
  const parts = [
    el("h3", {}, `Chain ${record.chain}`),
    el("p", { className: "soft flush" }, `${place}${state}${reason(record)}`),
  ];
  if (record.earlier?.length) {
    parts.push(el("ol", { className: "stages" }, ...record.earlier.map((one) => stage(one, content))));
  }
  return parts;
}

function reason(record) {
  return record.chain_reason ? `: ${record.chain_reason}` : "";
}

function stage(one, content) {
  const said = VERDICTS[one.verdict] ?? one.verdict ?? one.state;
  const bad = one.verdict === "reject" || (one.state !== "completed" && !one.verdict);
  const group = one.stage_name === one.agent ? "" : ` for ${one.stage_name}`;
  const round = one.round > 1 ? `, round ${one.round}` : "";
  return el(
    "li",
    {},
    el("span", { className: "badge", data: { state: bad ? "dead" : "completed" } }, `${stateSign(bad ? "dead" : "completed")} ${said}`),
    ` ${one.stage}. ${one.agent}${group}${round}`,
    content && one.answer ? el("pre", {}, String(one.answer)) : null,
  );
}
