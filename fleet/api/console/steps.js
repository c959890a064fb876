/** The steps of a turn: what each asked, what came back, and what it cost. */

import { el } from "./dom.js";
import { count, duration, usd } from "./format.js";
import { shown } from "./content.js";

const HIDDEN = "(hidden)";

/**
 * A list of steps; `record` is what the API tells of the dispatch. `unfolded` holds the steps that
 * a person has opened, over every drawing of the panel.
 */
export function steps(record, unfolded) {
  const all = record.steps;
  if (!Array.isArray(all) || !all.length) return [];
  const longest = Math.max(0.001, ...all.map((one) => one.elapsed_s));
  return [
    el("h3", {}, `Steps (${count(all.length)})`),
    el("ol", { className: "calls" }, ...all.map((one) => step(one, record, longest, unfolded))),
  ];
}

function step(one, record, longest, unfolded) {
  const replayed = one.attempt < record.attempt;
  const facts = [
    one.model,
    one.tier > 1 ? `tier ${one.tier}` : null,
    one.tokens_in || one.tokens_out ? `${count(one.tokens_in)} in, ${count(one.tokens_out)} out` : null,
    one.usd ? usd(one.usd) : null,
    one.verification === "timeout_fallback" ? "unverified" : one.verification,
    replayed ? `kept from attempt ${one.attempt}: not paid for again` : null,
  ].filter(Boolean);
  const bar = el("span", { className: "share", "aria-hidden": "true" });
  bar.style.setProperty("--share", (one.elapsed_s / longest).toFixed(3));
  const head = [
    el("span", { className: "step-name" }, `${one.step} ${one.name}`),
    el("span", { className: "num" }, duration(one.elapsed_s)),
    bar,
    facts.length ? el("span", { className: "soft" }, facts.join(" · ")) : null,
  ];
  const has = shown() && one.result !== HIDDEN;
  if (!has) return el("li", { className: "call" }, el("div", { className: "call-head" }, ...head));
  const fold = el("details", { className: "call" }, el("summary", { className: "call-head" }, ...head));
  fold.open = unfolded.has(one.step);
  fold.addEventListener("toggle", () => {
    if (fold.open) unfolded.add(one.step);
    else unfolded.delete(one.step);
    if (fold.open && fold.childElementCount === 1) fold.append(...inside(one));
  });
  if (fold.open) fold.append(...inside(one));
  return el("li", {}, fold);
}

function inside(one) {
  return [...request(one.request), el("h4", {}, "Result"), ...value(one.result)];
}

/** What a model or a tool was sent; the messages of a model one by one. */
function request(sent) {
  if (sent === undefined || sent === null) return [];
  const parts = [el("h4", {}, "Request")];
  if (!Array.isArray(sent.messages)) return [...parts, ...value(sent)];
  const { messages, ...rest } = sent;
  if (rest.tools && Array.isArray(rest.tools)) rest.tools = rest.tools.map((tool) => tool.function?.name ?? tool);
  return [
    ...parts,
    el("p", { className: "soft flush" }, Object.entries(rest).map(([name, one]) => `${name}: ${flat(one)}`).join(" · ")),
    el("ol", { className: "messages" }, ...messages.map(message)),
  ];
}

function message(one) {
  const calls = one.tool_calls ?? [];
  const said = typeof one.content === "string" ? one.content : one.content ? flat(one.content) : "";
  return el(
    "li",
    { className: "message", data: { role: one.role ?? "" } },
    el("b", {}, [one.role, one.name].filter(Boolean).join(" ")),
    said ? el("pre", {}, said) : null,
    ...calls.map((call) => {
      const { name, arguments: given } = call.function ?? call;
      return el("pre", {}, `${name ?? "call"}(${typeof given === "string" ? given : flat(given)})`);
    }),
  );
}

function value(one) {
  if (one === null || typeof one !== "object" || Array.isArray(one)) return [el("pre", {}, flat(one))];
  const { text, tool_calls: calls, ...rest } = one;
  const parts = [];
  if (text) parts.push(el("pre", {}, flat(text)));
  if (Array.isArray(calls) && calls.length) {
    parts.push(el("ol", { className: "messages" }, message({ role: "calls", tool_calls: calls })));
  }
  if (Object.keys(rest).length) parts.push(el("pre", { className: "soft" }, flat(rest)));
  return parts;
}

function flat(one) {
  return typeof one === "string" ? one : JSON.stringify(one, null, 1);
}
