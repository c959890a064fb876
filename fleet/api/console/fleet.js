/** The page of the whole fleet: alerts, limits and spend, breakers, chains, tokens. */

import { get, post } from "./api.js";
import { spend } from "./agentpanel.js";
import { flow } from "./chain.js";
import { targets } from "./compose.js";
import { done, failed } from "./dialogs.js";
import { action, el, prose, throttled } from "./dom.js";
import { clock, count, duration } from "./format.js";
import { why } from "./header.js";
import { tokensSection } from "./tokens.js";

const REFRESH_MS = 10000;
const DRAW_MS = 1500;

export class FleetView {
  constructor(model, spans) {
    this.model = model;
    this.spans = spans;
    this.heads = [];
    this.columns = "";
    this.alerts = null;
    this.tokens = null;
    this.plans = [];
    this.parts = {};
    this.drawSoon = throttled(DRAW_MS, () => this.node?.isConnected && this.#draw());
    this.fetchSoon = throttled(DRAW_MS, () => this.node?.isConnected && this.#fetch());
    model.addEventListener("health", this.drawSoon);
    model.addEventListener("agents", this.drawSoon);
    setInterval(() => this.node?.isConnected && !document.hidden && this.#fetch(), REFRESH_MS);
  }

  tools() {
    return [];
  }

  rows() {
    return [];
  }

  hint() {
    return "";
  }

  /** An alert came over the bus. */
  take(events) {
    if (events.some((event) => event.type === "alert")) this.fetchSoon();
  }

  /** The page, which is kept up to date while it is shown. */
  page() {
    this.node ??= el("div", { className: "cards" });
    this.#fetch();
    return this.node;
  }

  async #fetch() {
    const [alerts, { chains }] = await Promise.all([openAlerts(), targets()]);
    this.alerts = alerts;
    this.plans = chains;
    // False for whoever may not see them: they are not asked for again.
    this.tokens ??= (await tokensSection(this.model)) ?? false;
    this.#draw();
  }

  #draw() {
    const active = document.activeElement;
    const inside = this.node.contains(active);
    this.node.replaceChildren(
      ...[
        this.spans.node,
        this.#alertsCard(),
        this.#spendCard(),
        this.#breakersCard(),
        this.#healthCard(),
        this.#chainsCard(),
        this.tokens,
      ].filter(Boolean),
    );
    this.spans.refresh();
    if (inside && this.node.contains(active)) active.focus({ preventScroll: true });
  }

  #alertsCard() {
    if (!this.alerts) return null;
    const { open, past } = this.alerts;
    const lines = [...open, ...past.slice(0, 5)].map((one) => alertLine(one, () => this.#fetch()));
    return card("alerts", "Alerts", ...(lines.length ? lines : [empty("Nothing is wrong, and nothing was lately.")]));
  }

  #spendCard() {
    const rows = [...this.model.agents.values()];
    if (!rows.length) return null;
    const most = rows.sort((one, other) => (other.spend?.usd ?? 0) - (one.spend?.usd ?? 0)).slice(0, 12);
    return card(
      "spend",
      "Spend and limits today",
      ...most.map((row) =>
        el(
          "div",
          { className: "line" },
          el("a", { href: `#/agent/${encodeURIComponent(row.agent)}` }, row.agent),
          el("span", { className: "grow" }, ...spend(row)),
          row.limits ? el("span", { className: "soft" }, `turn ${duration(row.limits.timeout_s)}, queue ${count(row.limits.max_pending)}`) : null,
        ),
      ),
    );
  }

  #breakersCard() {
    const { health } = this.model;
    if (!health) return null;
    const open = Object.entries(health.g4?.providers ?? {});
    return card(
      "breakers",
      "Providers and breakers",
      el("div", { className: "line" }, el("b", {}, "broker"), el("span", { className: "grow" }, `breaker ${health.g4?.breaker ?? "unknown"}, ${count(health.g4?.spooled)} events on disk`)),
      ...open.map(([name, one]) =>
        el(
          "div",
          { className: "line" },
          el("b", { className: "grow" }, name),
          el("span", { className: "badge", data: { state: one.state === "open" ? "dead" : "retrying" } }, one.state === "open" ? `✕ open, tried in ${duration(one.tried_in_s)}` : "↻ one call tries"),
          el("span", { className: "soft full" }, [one.reason, one.agents?.length ? `stops ${one.agents.join(", ")}` : ""].filter(Boolean).join("; ")),
        ),
      ),
      open.length ? null : empty("Every model may be called."),
    );
  }

  #healthCard() {
    const { health } = this.model;
    if (!health) return null;
    const failing = health.failing ?? [];
    const removed = Object.keys(health.g2?.removed ?? {});
    return card(
      "parts",
      "Parts",
      line("state", [health.status, why(health)].filter(Boolean).join(": ")),
      line("version", health.version),
      line("beat", health.beat?.last_tick_s === null ? "never ticked" : `ticked ${duration(health.beat.last_tick_s)} ago`),
      line("bus", `${count(health.bus?.clients)} ${health.bus?.clients === 1 ? "client" : "clients"}, keeps ${duration(health.bus?.retention_s)}`),
      line("intake", health.g4?.intake ?? "unknown"),
      line("pages", ...pages(health)),
      ...failing.map((one) => line(`${one.process} on ${one.host}`, `keeps ending: ${one.reason}`)),
      ...(removed.length ? [line("removed agents with work", removed.join(", "))] : []),
    );
  }

  #chainsCard() {
    if (!this.plans.length) return null;
    return card(
      "chains",
      "Chains",
      ...this.plans.flatMap((plan) => [
        el("h3", {}, plan.name),
        flow(plan),
        el("p", { className: "soft flush" }, `On a failure: ${plan.on_failure}. Without a verdict: ${plan.on_silence}. At most ${count(plan.max_revisions)} revisions.`),
      ]),
    );
  }
}

/** `{open, past}` of the API's alerts; null where it has none to tell. */
export async function openAlerts() {
  const found = await get("alerts", { all: "1" }).catch(() => null);
  return Array.isArray(found?.open) ? { open: found.open, past: found.past ?? [] } : null;
}

function alertLine(one, changed) {
  const open = one.state === "open";
  const { acknowledged, silenced } = one;
  const name = [one.name, one.agent].filter(Boolean).join(" · ");
  const facts = [
    one.host ? `on ${one.host}` : null,
    `since ${clock(one.since)}`,
    one.ended_at ? `over at ${clock(one.ended_at)}` : null,
    acknowledged ? `seen by ${acknowledged.by}${acknowledged.comment ? `: ${acknowledged.comment}` : ""}` : null,
    silenced ? `silent until ${clock(silenced.until)}, by ${silenced.by}` : null,
  ].filter(Boolean);
  const mark = (label, verb, body) =>
    action(label, () => markAlert(one, verb, body, changed), { className: "small", "aria-label": `${label}: ${name}` });
  return el(
    "div",
    { className: "line" },
    el("span", { className: "badge", data: { state: open ? "dead" : "" } }, open ? "! open" : "✓ over"),
    el("b", { className: "grow" }, name),
    open && !acknowledged && !one.host ? mark("Seen", "ack") : null,
    open && !silenced ? mark("Silence 1 h", "silence", { for_s: 3600 }) : null,
    open && silenced ? mark("Tell again", "unsilence") : null,
    el("span", { className: "full" }, ...prose(one.reason ?? "")),
    el("span", { className: "soft full" }, facts.join(" · ")),
  );
}

async function markAlert(one, verb, body, changed) {
  try {
    await post(`alerts/${encodeURIComponent(one.id)}/${verb}`, body);
    done(`The alert ${one.name} is ${{ ack: "acknowledged", silence: "silent for an hour" }[verb] ?? "told again"}.`);
    changed();
  } catch (problem) {
    failed(problem);
  }
}

function card(id, title, ...children) {
  return el(
    "section",
    { className: "card", "aria-labelledby": `${id}-title` },
    el("header", {}, el("h2", { id: `${id}-title` }, title)),
    ...listed(children),
  );
}

/** The lines among the children, as a list. */
function listed(children) {
  const isLine = (one) => one?.classList.contains("line");
  const lines = children.filter(isLine);
  for (const one of lines) one.setAttribute("role", "listitem");
  const rest = children.filter((one) => one && !isLine(one));
  return lines.length ? [el("div", { role: "list" }, ...lines), ...rest] : rest;
}

function line(name, ...values) {
  return el("div", { className: "line" }, el("b", {}, name), el("span", { className: "grow" }, ...values));
}

/** Links that a small screen's header has no room for. */
function pages(health) {
  const link = (href, text) => el("a", { href, target: "_blank", rel: "noopener" }, text);
  const flower = health.links?.flower;
  return [link("openapi.json", "the API"), ...(flower ? [", ", link(flower, "Flower")] : [])];
}

function empty(text) {
  return el("p", { className: "soft" }, ...prose(text));
}
