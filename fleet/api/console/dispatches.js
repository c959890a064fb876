/** Lists of dispatches: all of them, the dead letters, and what waits for a person. */

import { get, post } from "./api.js";
import { action, el, say } from "./dom.js";
import { clock, count, duration, shortId, STATE_NAMES, stateSign } from "./format.js";
import { askReason, confirmed, done, failed } from "./dialogs.js";

const PAGE = 200;

/** What an event of the bus makes of a dispatch. */
const STATE_AFTER = {
  dispatch_queued: "queued",
  dispatch_started: "active",
  dispatch_completed: "completed",
  dispatch_dead: "dead",
  dispatch_cancelled: "cancelled",
  dispatch_dropped: "dropped",
  dispatch_expired: "expired",
  dispatch_parked: "parked",
};

/** How far a dispatch is within its attempt: an event that was on its way never sets one back. */
const PROGRESS = { queued: 0, parked: 0.05, active: 0.1, announcing: 0.15, retrying: 0.2 };

function progress(state, attempt, replayed) {
  return (attempt ?? 0) + (replayed ? 0.9 : (PROGRESS[state] ?? 0.3));
}

/** What a person may do to a dispatch, by its state: [word, verb]. */
export const VERBS = {
  dead: [["Replay", "retry"]],
  parked: [
    ["Approve", "approve"],
    ["Reject", "reject"],
  ],
  queued: [["Cancel", "cancel"]],
  retrying: [["Cancel", "cancel"]],
  active: [["Cancel", "cancel"]],
};

/** Do it; true when the API agreed. Rejecting and cancelling ask for a reason first. */
export async function operate(dispatchId, verb) {
  let body;
  if (verb === "reject" || verb === "cancel") {
    const reason = await askReason(verb, dispatchId);
    if (reason === null) return false;
    body = { reason };
  }
  try {
    const { state } = await post(`dispatches/${encodeURIComponent(dispatchId)}/${verb}`, body);
    done(`${shortId(dispatchId)} is ${state}.`);
    return true;
  } catch (problem) {
    failed(problem);
    return false;
  }
}

export class DispatchesView {
  /** `states` narrows the list for good; empty lets the person choose. */
  constructor(model, open, { label, states, empty }) {
    this.model = model;
    this.open = (row) => open(row.dispatch_id);
    this.label = label;
    this.fixed = states;
    this.empty = empty;
    this.columns = "cols-dispatches";
    this.heads = [
      ...[["state"], ["dispatch"], ["agent"], ["accepted", "num"], ["took", "num"]],
      ...[["try", "num"], ["why"], [""]],
    ];
    this.agent = "";
    this.state = "";
    this.byId = new Map();
    this.list = [];
    this.cursor = null;
    this.loading = false;
    this.asked = 0;
    this.changed = () => {};
  }

  key(row) {
    return row.dispatch_id;
  }

  tools(changed) {
    this.changed = changed;
    const agent = el("input", {
      type: "search",
      placeholder: "Agent",
      "aria-label": "Only dispatches of this agent",
      "aria-keyshortcuts": "/",
      value: this.agent,
      autocomplete: "off",
    });
    agent.setAttribute("list", "agent-names");
    const names = el("datalist", { id: "agent-names" });
    for (const name of [...this.model.agents.keys()].slice(0, 1000)) {
      names.append(el("option", { value: name }));
    }
    agent.addEventListener("change", () => {
      this.agent = agent.value.trim();
      this.load();
    });
    const tools = [agent, names];
    if (this.fixed.length !== 1) tools.push(this.#stateChoice());
    tools.push(el("span", { className: "gap" }));
    if (this.fixed[0] === "dead") tools.push(action("Replay all", () => this.#replayAll()));
    return tools;
  }

  #stateChoice() {
    const choice = el(
      "select",
      { "aria-label": "Only dispatches in this state" },
      el("option", { value: "" }, "any state"),
      ...STATE_NAMES.map((name) => el("option", { value: name, selected: name === this.state }, name)),
    );
    choice.addEventListener("change", () => {
      this.state = choice.value;
      this.load();
    });
    return choice;
  }

  get states() {
    return this.state ? [this.state] : this.fixed;
  }

  rows() {
    return this.list;
  }

  hint(rows) {
    if (rows.length) return "";
    return this.loading ? "Asking the ledger ..." : this.empty;
  }

  /** The newest page, anew. */
  async load() {
    const asked = ++this.asked;
    await this.#page(asked, null);
  }

  /** The next page, when there is one. */
  more() {
    if (this.cursor && !this.loading) this.#page(this.asked, this.cursor);
  }

  async #page(asked, cursor) {
    this.loading = true;
    this.changed();
    try {
      const query = { agent: this.agent, state: this.states, limit: PAGE, cursor };
      const page = await get("dispatches", query);
      if (asked !== this.asked) return;
      if (cursor === null) {
        this.byId.clear();
        this.list = [];
      }
      const news = page.dispatches.filter((row) => !this.byId.has(row.dispatch_id));
      for (const row of news) this.byId.set(row.dispatch_id, row);
      this.list = this.list.concat(news);
      this.cursor = page.cursor;
    } catch (problem) {
      if (asked !== this.asked) return;
      this.cursor = null;
      failed(problem);
    } finally {
      if (asked === this.asked) this.loading = false;
      this.changed();
    }
  }

  /** Follow the bus: rows change, come and go, without asking the API. */
  take(events) {
    const news = [];
    let gone = false;
    for (const event of events) {
      if (!event.dispatch_id || (this.agent && event.agent !== this.agent)) continue;
      const row = this.byId.get(event.dispatch_id);
      const state = STATE_AFTER[event.type] ?? (event.will_retry ? "retrying" : null);
      if (!state) continue;
      const at = progress(state, event.attempt, event.reason === "replayed");
      const kept = !this.states.length || this.states.includes(state);
      if (row) {
        if (at < (row.at ?? progress(row.state, row.attempt))) continue;
        update(row, event, state, at);
        if (!kept) {
          this.byId.delete(row.dispatch_id);
          row.gone = gone = true;
        }
      } else if (kept && (event.type === "dispatch_queued" || this.states.length)) {
        const { dispatch_id, agent, session, chain, chain_stage } = event;
        const made = { dispatch_id, agent, session, chain, chain_stage, accepted_at: event.time };
        update(made, event, state, at);
        this.byId.set(made.dispatch_id, made);
        news.unshift(made);
      }
    }
    if (gone) this.list = this.list.filter((row) => !row.gone);
    if (news.length) this.list = news.filter((row) => !row.gone).concat(this.list);
    this.changed();
  }

  cells(row) {
    const cells = {
      state: el("span", { className: "badge" }),
      id: el("span", { className: "id" }),
      agent: el("span", { className: "name" }),
      accepted: el("span", { className: "num" }),
      took: el("span", { className: "num" }),
      attempt: el("span", { className: "num" }),
      why: el("span", { className: "soft" }),
      does: el("span", { className: "does" }),
    };
    cells.does.onclick = (event) => event.stopPropagation();
    cells.does.row = row;
    return cells;
  }

  fill(cells, row) {
    cells.state.dataset.state = row.state;
    say(cells.state, `${stateSign(row.state)} ${row.state}`);
    say(cells.id, shortId(row.dispatch_id));
    cells.id.title = row.dispatch_id;
    say(cells.agent, row.agent);
    say(cells.accepted, clock(row.accepted_at));
    say(cells.took, row.elapsed_s === undefined ? "–" : duration(row.elapsed_s));
    say(cells.attempt, count(row.attempt));
    say(cells.why, why(row));
    cells.why.title = cells.why.textContent;
    this.#buttons(cells.does, row);
  }

  #buttons(node, row) {
    const verbs = row.state === "dead" || row.state === "parked" ? VERBS[row.state] : [];
    const wanted = verbs.map(([, verb]) => verb).join(" ");
    if (node.dataset.verbs === wanted) return;
    node.dataset.verbs = wanted;
    node.replaceChildren(
      ...verbs.map(([word, verb]) => {
        const label = `${word} ${shortId(row.dispatch_id)} of ${row.agent}`;
        const button = action(word, () => operate(row.dispatch_id, verb), { "aria-label": label });
        button.className = "small";
        button.tabIndex = -1;
        return button;
      }),
    );
  }

  async #replayAll() {
    const rows = this.list.filter((row) => row.state === "dead");
    const what = `Queue ${count(rows.length)} dead letters again, oldest first?`;
    if (!rows.length || !(await confirmed(what, "Replay all"))) return;
    let refused = null;
    let replayed = 0;
    for (const row of rows.reverse()) {
      try {
        await post(`dispatches/${encodeURIComponent(row.dispatch_id)}/retry`);
        replayed += 1;
      } catch (problem) {
        refused = problem;
        if (!problem.status || problem.status >= 500) break;
      }
    }
    done(`${count(replayed)} of ${count(rows.length)} are queued again.`);
    if (refused) failed(refused);
  }
}

/** What is most worth knowing of a dispatch: its trouble, its place in a chain, its session. */
function why(row) {
  if (row.error) return [row.stage, row.error].filter(Boolean).join(": ");
  if (row.chain && row.chain_stage) {
    return `chain ${row.chain}, stage ${row.chain_stage}${row.chain_stages ? ` of ${row.chain_stages}` : ""}`;
  }
  return row.session ? `session ${row.session}` : "";
}

function update(row, event, state, at) {
  row.state = state;
  row.at = at;
  row.attempt = event.attempt ?? row.attempt ?? 0;
  if (event.elapsed_s !== undefined) row.elapsed_s = event.elapsed_s;
  if (state === "queued" || state === "active" || state === "completed") {
    row.stage = row.error = undefined;
  } else if (event.reason) {
    row.stage = event.stage;
    row.error = event.reason;
  }
}
