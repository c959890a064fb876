/** The panel of one agent: what it is for, its limits and spend, and how it is configured. */

import { switchAgent } from "./agents.js";
import { compose } from "./compose.js";
import { absolute, copy } from "./copy.js";
import { action, el } from "./dom.js";
import { agentSign, count, duration, stateSign, usd } from "./format.js";
import { pairs } from "./pairs.js";

/** The parts of the panel; `panel` has `id`, `config`, `model`, `spans`, `open(kind)(id)` and `list(agent)`. */
export function agentPanel(panel) {
  const row = panel.model.agents.get(panel.id);
  if (!row) return [el("p", { className: "hint" }, "There is no agent of this name.")];
  return [
    el(
      "p",
      { className: "lead" },
      el("span", { className: "badge", data: { state: row.status } }, `${agentSign(row.status)} ${row.status}`),
      row.hold_reason ? el("span", { className: "waiting" }, ` ${row.hold_reason}, for ${duration(row.hold_s)} more`) : null,
    ),
    row.description ? el("p", { className: "about" }, row.description) : null,
    el(
      "div",
      { className: "buttons" },
      action("Send it an event", () => compose(panel.open("dispatch"), { to: row.agent }), { className: "yes" }),
      action(row.paused ? "Resume" : "Pause", () => switchAgent(panel.model, row.agent, !row.paused)),
      action("Its dispatches", async () => panel.list(row.agent)),
      row.active ? action("What runs", async () => panel.open("dispatch")(row.active)) : null,
      action("Copy link", () => copy(absolute(`#/agent/${encodeURIComponent(row.agent)}`), "The link is")),
    ),
    pairs([
      ["model", [row.model ?? `${row.runner} runner`, ...(row.fallbacks ?? [])].join(", then ")],
      ["tools", row.tools?.join(", ")],
      ["receivers", row.deliver?.join(", ")],
      ["holder", row.holder ? `${row.holder}, for ${duration(row.held_s)}` : "nobody"],
      ["pool", row.pool],
      ["running", row.running > 1 ? `${count(row.running)} turns` : null],
      ["fence", count(row.fence)],
      ["tier", row.tier],
      ["oldest wait", row.oldest_s ? duration(row.oldest_s) : "–"],
      ...providers(row, panel.model.health),
    ]),
    el("h3", {}, "Today"),
    ...spend(row),
    el("h3", {}, "Its dispatches"),
    states(row),
    panel.spans.of(row.agent),
    ...limits(row),
    ...configuration(panel.config),
  ].filter(Boolean);
}

/** The providers that are not called for this agent now, and why. */
function providers(row, health) {
  return Object.entries(health?.g4?.providers ?? {})
    .filter(([, one]) => one.agents?.includes(row.agent))
    .map(([name, one]) => {
      const state = one.state === "open" ? `open, tried in ${duration(one.tried_in_s)}` : "one call tries";
      return ["breaker", `${name}: ${state}`];
    });
}

/** Today's spend, each beside its limit where it has one. */
export function spend(row) {
  const { usd: dollars, tokens_in: read, tokens_out: written } = row.spend ?? { usd: 0, tokens_in: 0, tokens_out: 0 };
  const budget = row.budget ?? {};
  return [
    meter("spent", usd(dollars), dollars, budget.usd_per_day, usd),
    meter("tokens", `${count(read)} in, ${count(written)} out`, read + written, budget.tokens_per_day, count),
  ];
}

function meter(name, said, value, limit, shownAs) {
  const share = limit ? Math.min(1, value / limit) : 0;
  const bar = el("span", { className: "meter", "aria-hidden": "true", hidden: !limit });
  bar.style.setProperty("--share", share.toFixed(3));
  bar.dataset.full = share >= 0.9 ? "1" : "0";
  return el("p", { className: "spent" }, el("span", { className: "soft" }, name), ` ${said}`, limit ? ` of ${shownAs(limit)}` : "", bar);
}

function states(row) {
  const badges = Object.entries(row.states).map(([state, number]) =>
    el("span", { className: "badge", data: { state } }, `${stateSign(state)} ${count(number)} ${state}`),
  );
  return el("p", { className: "badges" }, ...(badges.length ? badges : ["none yet"]));
}

function limits(row) {
  if (!row.limits) return [];
  return [
    el("h3", {}, "Limits"),
    pairs([
      ["turn", duration(row.limits.timeout_s)],
      ["waiting", count(row.limits.max_pending)],
      ["attempts", count(row.limits.attempts)],
      ["busy session", row.limits.on_busy],
    ]),
  ];
}

function configuration(config) {
  if (!config) return [];
  return [
    el("h3", {}, "Configuration"),
    el("p", { className: "soft flush" }, "As set in the file and the environment; secrets are masked."),
    pairs(
      Object.entries(config.options).map(([name, value]) => {
        const text = typeof value === "object" ? JSON.stringify(value, null, 1) : String(value);
        return [name, text.includes("\n") ? el("pre", {}, text) : text];
      }),
    ),
  ];
}
