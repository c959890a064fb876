/** The signs and figures at the top: how the fleet is, and how fresh that is. */

import { byId, el, say } from "./dom.js";
import { clock, count, duration, usd } from "./format.js";

const LINKS = {
  live: ["● live", "ok"],
  connecting: ["◌ connecting", "degraded"],
  away: ["✕ no connection, trying again", "down"],
};
const HEALTH = { ok: "● ok", degraded: "▲ degraded", down: "✕ down" };

/** [name, value, is it zero, explanation]. */
function figures(totals, health, agents) {
  const states = totals.states;
  const active = (states.active ?? 0) + (states.announcing ?? 0);
  return [
    ["queued", count(states.queued), !states.queued, "dispatches that wait for their agent"],
    ["running", `${count(active)} / ${count(agents)}`, !active, "turns that run, of all agents"],
    ["retrying", count(states.retrying), !states.retrying, "wait for their next attempt"],
    ["parked", count(states.parked), !states.parked, "wait for a person"],
    ["dead", count(states.dead), !states.dead, "given up; can be replayed"],
    ["oldest wait", totals.oldest_s ? duration(totals.oldest_s) : "–", !totals.oldest_s, ""],
    ["spent today", usd(totals.usd), !totals.usd, `${count(totals.tokens)} tokens, since 0:00 UTC`],
    ["breakers", ...breakers(health)],
  ];
}

/** Of the broker and of the models' providers: what is open. */
function breakers(health) {
  const broker = health?.g4?.breaker;
  const open = Object.entries(health?.g4?.providers ?? {}).filter(([, one]) => one.state === "open");
  const said = "the circuit breakers of the broker and of the models' providers";
  if (broker && broker !== "closed") return [`broker ${broker.replace("_", " ")}`, false, said];
  if (!open.length) return [broker ?? "–", true, said];
  return [`${count(open.length)} open`, false, open.map(([name, one]) => `${name}: ${one.reason}`).join("; ")];
}

/** What is shown is fetched every 15 s at least while all is well; a lost connection is told soon. */
const STALE_S = 45;
const LOST_S = 3;
const AGE_MS = 1000;

export class Header {
  constructor(model) {
    this.model = model;
    this.cells = new Map();
    this.linked = false;
    this.trouble = null;
    model.addEventListener("agents", () => this.#figures());
    model.addEventListener("health", () => this.#health());
    model.addEventListener("trouble", ({ detail }) => {
      if (detail.what === "health") this.trouble = detail.problem.message;
      this.age();
    });
    setInterval(() => this.age(), AGE_MS);
  }

  /** How the page is connected to the bus. */
  link(state) {
    this.linked = state === "live";
    const [text, level] = LINKS[state];
    this.#sign("link", text, level, "the connection to the bus");
    this.age();
  }

  /** Say how old what is shown is, and grey it, while it is not kept up to date. */
  age() {
    const { freshAt, health } = this.model;
    if (freshAt === null) return;
    const old = (Date.now() - freshAt) / 1000;
    const lost = Boolean(this.trouble) || old > (this.linked ? STALE_S : LOST_S);
    const stale = lost || health?.status === "down";
    document.body.dataset.stale = stale ? "1" : "0";
    const banner = byId("stale");
    banner.hidden = !stale;
    if (!stale) return;
    const ago = `${duration(Math.max(1, Math.round(old)))} ago`;
    const cause = this.trouble ?? health?.reason ?? "The connection is being tried again.";
    say(banner, `Not live: this is how it was ${ago}, at ${clock(new Date(freshAt).toISOString())}. ${cause}`);
    if (lost) this.#sign("health", `◌ was ${health?.status ?? "not known"} ${ago}`, "unknown", cause);
  }

  #health() {
    this.trouble = null;
    const { status, version, links } = this.model.health;
    this.#sign("health", HEALTH[status], status, why(this.model.health) ?? `version ${version}`);
    const flower = byId("flower");
    flower.hidden = !links?.flower;
    if (links?.flower) flower.href = links.flower;
    this.#figures();
    this.age();
  }

  #sign(id, text, level, title) {
    const node = byId(id);
    say(node, text);
    node.dataset.level = level;
    node.title = title;
  }

  #figures() {
    const totals = this.model.totals();
    const { agents, health } = this.model;
    for (const [name, value, zero, title] of figures(totals, health, agents.size)) {
      let cell = this.cells.get(name);
      if (!cell) {
        cell = el("dd");
        byId("figures").append(el("div", { title, data: { figure: name } }, el("dt", {}, name), cell));
        this.cells.set(name, cell);
      }
      say(cell, value);
      cell.parentElement.title = title;
      cell.classList.toggle("zero", zero);
    }
    this.#count("agents", agents.size);
    this.#count("dead", totals.states.dead);
    this.#count("parked", totals.states.parked);
  }

  #count(name, number) {
    const node = byId(`count-${name}`);
    say(node, number ? count(number) : "");
    node.hidden = !number;
  }
}

/** Which part makes a fleet degraded, in words; null where none does. */
export function why(health) {
  const { status, reason, g2, beat } = health;
  if (reason || status !== "degraded") return reason ?? null;
  const gone = Object.entries(g2.agents).filter(([, row]) => !row.holder);
  if (gone.length === 1) return `${gone[0][0]} has no worker`;
  if (gone.length) return `${count(gone.length)} agents have no worker: ${gone.slice(0, 3).map(([name]) => name).join(", ")} ...`;
  if (beat.last_tick_s === null || beat.last_tick_s > 15) return "beat does not tick";
  return "an agent does not take work";
}
