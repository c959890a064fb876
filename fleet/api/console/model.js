/** What the page knows of the fleet: agents and health from the API, changes from the bus. */

import { get } from "./api.js";
import { throttled } from "./dom.js";
import { Stats } from "./stats.js";

/** More changed agents than this are asked for all at once. */
const SOME = 40;
const SOME_MS = 300;
const ALL_MS = 3000;
/** Pausing rings no bell on the bus, and a fleet that is in trouble is watched more closely. */
const REFRESH_MS = 15000;
const TROUBLED_MS = 2000;
/** Events kept for the timelines of dispatches. */
const RECENT = 5000;

export class Model extends EventTarget {
  constructor() {
    super();
    this.agents = new Map();
    this.states = {};
    this.health = null;
    this.stats = new Stats();
    this.recent = [];
    /** When anything was heard of the fleet last; null before. */
    this.freshAt = null;
    this.failing = false;
    this.changed = new Set();
    this.askSome = throttled(SOME_MS, () => this.#someAgents());
    this.askAll = throttled(ALL_MS, () => this.#allAgents());
    this.refreshed = 0;
    setInterval(() => {
      const calm = this.health?.status === "ok" && !this.failing;
      const late = performance.now() - this.refreshed > (calm ? REFRESH_MS : TROUBLED_MS);
      if (late && !document.hidden) this.refresh();
    }, TROUBLED_MS / 2);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.refresh();
    });
  }

  /** Fetch everything anew; problems are told, and the next refresh may do better. */
  async refresh() {
    this.refreshed = performance.now();
    await Promise.all([this.#allAgents(), this.#health()]);
  }

  /** Fetch these agents anew, soon. */
  touch(name) {
    this.changed.add(name);
    // People are no agents, but what waits for them is counted.
    if (this.changed.size > SOME || !this.agents.has(name)) this.askAll();
    else this.askSome();
  }

  /** The API gave a sign of life: what is shown is what it knows. */
  alive() {
    this.freshAt = Date.now();
  }

  /** Events came over the bus, in order. */
  take(events) {
    for (const event of events) {
      this.stats.add(event);
      this.recent.push(event);
      if (event.agent) this.touch(event.agent);
    }
    if (this.recent.length > 2 * RECENT) this.recent.splice(0, this.recent.length - RECENT);
    this.#tell("events", events);
  }

  /** The events of one dispatch that are still known here, oldest first. */
  eventsOf(dispatchId) {
    return this.recent.filter((event) => event.dispatch_id === dispatchId);
  }

  /** Sums over all agents. */
  totals() {
    const totals = { states: this.states, oldest_s: 0, usd: 0, tokens: 0 };
    for (const row of this.agents.values()) {
      totals.oldest_s = Math.max(totals.oldest_s, row.oldest_s);
      totals.usd += row.spend?.usd ?? 0;
      totals.tokens += (row.spend?.tokens_in ?? 0) + (row.spend?.tokens_out ?? 0);
    }
    return totals;
  }

  async #allAgents() {
    this.changed.clear();
    await this.#ask("agents", async () => {
      const { agents, totals } = await get("agents");
      this.states = totals;
      this.agents = new Map(agents.map((row) => [row.agent, row]));
      this.#tell("agents");
    });
  }

  async #someAgents() {
    const names = [...this.changed].filter((name) => this.agents.has(name));
    if (!names.length || names.length > SOME) return;
    this.changed.clear();
    await this.#ask("agents", async () => {
      const { agents, totals } = await get("agents", { agent: names });
      this.states = totals;
      for (const row of agents) this.agents.set(row.agent, row);
      this.#tell("agents");
    });
  }

  async #health() {
    await this.#ask("health", async () => {
      this.health = await get("health");
      this.#tell("health");
    });
  }

  async #ask(what, call) {
    try {
      await call();
      this.failing = false;
      // A fleet that is down tells its health, and nothing of its agents.
      if (what === "agents") this.alive();
    } catch (problem) {
      this.failing = true;
      this.#tell("trouble", { what, problem });
    }
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
