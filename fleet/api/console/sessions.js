/** The conversations, last active first, as far back as a person scrolls. */

import { el, pair, say, throttled, twoLines } from "./dom.js";
import { clock, count, stateSign, usd } from "./format.js";
import { failed } from "./dialogs.js";
import { getWithContent, shown } from "./content.js";

const RELOAD_MS = 4000;
const PAGE = 200;

export class SessionsView {
  constructor(model, open) {
    this.model = model;
    this.open = (row) => open(row.session);
    this.label = "Sessions, last active first";
    this.columns = "cols-sessions";
    this.heads = [["session"], ["said last"], ["dispatches", "num"], ["last active", "num"], ["cost", "num"]];
    this.list = [];
    this.pages = [];
    this.cursor = null;
    this.filter = "";
    this.loading = false;
    this.problem = null;
    this.changed = () => {};
    this.again = throttled(RELOAD_MS, () => this.#page(null));
  }

  key(row) {
    return row.session;
  }

  tools(changed) {
    this.changed = changed;
    const filter = el("input", {
      type: "search",
      placeholder: "Filter by session, agent or text",
      "aria-label": "Filter sessions by name, agent or text",
      className: "words",
      "aria-keyshortcuts": "/",
      value: this.filter,
    });
    filter.addEventListener("input", () => {
      this.filter = filter.value.trim().toLowerCase();
      changed();
    });
    return [filter];
  }

  rows() {
    if (!this.filter) return this.list;
    return this.list.filter((row) =>
      [row.session, row.text ?? "", ...row.agents].some((one) => one.toLowerCase().includes(this.filter)),
    );
  }

  hint(rows) {
    if (rows.length) return "";
    if (this.problem) return `This could not be fetched. ${this.problem.message}`;
    if (this.loading && (this.cursor || !this.list.length)) return "Asking the ledger ...";
    if (this.filter) return "No session matches.";
    return "No conversation of late: `fleet send \"hello\" --session S` begins one.";
  }

  /** The newest page, anew. */
  async load() {
    this.pages = [];
    await this.#page(null);
  }

  /** The next page, when there is one. */
  more() {
    if (this.cursor && !this.loading) this.#page(this.cursor);
  }

  async #page(cursor) {
    const { pages } = this;
    this.loading = true;
    try {
      const page = await getWithContent("sessions", { limit: PAGE, cursor });
      if (pages !== this.pages) return;
      this.problem = null;
      if (cursor) pages.push(page.sessions);
      else pages[0] = renewed(page.sessions, pages[0]);
      if (cursor || pages.length === 1) this.cursor = page.cursor ?? null;
      this.list = merged(pages);
    } catch (problem) {
      if (pages !== this.pages) return;
      this.cursor = null;
      this.problem = problem;
      if (problem.status !== 404) failed(problem);
    } finally {
      if (pages === this.pages) this.loading = false;
      this.changed();
    }
  }

  take(events) {
    if (events.some((event) => event.session)) this.again();
  }

  cells() {
    return {
      session: twoLines("", "name"),
      said: twoLines("", "said-line"),
      dispatches: el("span", { className: "num" }),
      newest: twoLines("num"),
      cost: twoLines("num"),
    };
  }

  fill(cells, row) {
    pair(cells.session, row.session, row.agents.join(", "));
    cells.session.title = row.session;
    const states = Object.entries(row.states).map(([state, number]) => `${stateSign(state)} ${count(number)} ${state}`);
    pair(cells.said, shown() ? (row.text ?? "") : "", states.join("   "));
    say(cells.dispatches, count(row.dispatches));
    pair(cells.newest, clock(row.newest_at), `since ${clock(row.oldest_at)}`);
    pair(cells.cost, row.usd ? usd(row.usd) : "–", row.tokens ? `${count(row.tokens)} tok` : "");
  }
}

/** The first page anew: what has moved on from it stays as it was. */
function renewed(news, before = []) {
  const names = new Set(news.map((one) => one.session));
  return [...news, ...before.filter((one) => !names.has(one.session))];
}

/** One row for each session; a session that is on several pages has their sums. */
function merged(pages) {
  const rows = new Map();
  for (const one of pages.flat()) {
    const row = rows.get(one.session);
    rows.set(one.session, row ? added(row, one) : one);
  }
  return [...rows.values()];
}

function added(newer, older) {
  const states = { ...newer.states };
  for (const [state, number] of Object.entries(older.states)) states[state] = (states[state] ?? 0) + number;
  return {
    ...newer,
    states,
    agents: [...new Set([...newer.agents, ...older.agents])],
    dispatches: newer.dispatches + older.dispatches,
    oldest_at: older.oldest_at,
    tokens: newer.tokens + older.tokens,
    usd: newer.usd + older.usd,
  };
}
