/** The conversations of late, last active first. */

import { el, pair, say, throttled, twoLines } from "./dom.js";
import { clock, count, stateSign, usd } from "./format.js";
import { failed } from "./dialogs.js";
import { getWithContent, shown } from "./content.js";

const RELOAD_MS = 4000;
const MOST = 200;

export class SessionsView {
  constructor(model, open) {
    this.model = model;
    this.open = (row) => open(row.session);
    this.label = "Sessions, last active first";
    this.columns = "cols-sessions";
    this.heads = [["session"], ["said last"], ["dispatches", "num"], ["last active", "num"], ["cost", "num"]];
    this.list = [];
    this.filter = "";
    this.loading = false;
    this.changed = () => {};
    this.again = throttled(RELOAD_MS, () => this.load());
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
    if (this.loading && !this.list.length) return "Asking the ledger ...";
    if (this.filter) return "No session matches.";
    return "No conversation of late: `fleet send \"hello\" --session S` begins one.";
  }

  async load() {
    this.loading = true;
    try {
      const { sessions } = await getWithContent("sessions", { limit: MOST });
      this.list = sessions;
    } catch (problem) {
      if (problem.status !== 404) failed(problem);
    } finally {
      this.loading = false;
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
