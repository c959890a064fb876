/** Lists of dispatches: all of them, the dead letters, and what waits for a person. */

import { action, el, pair, say, throttled, twoLines } from "./dom.js";
import { clock, count, duration, shortId, STATE_NAMES, stateSign, usd } from "./format.js";
import { failed } from "./dialogs.js";
import { getWithContent, shown } from "./content.js";
import { Follower } from "./follow.js";
import { BULK, operate, operateAll, VERBS } from "./verbs.js";

const PAGE = 200;
/** Figures and texts that the bus does not carry are fetched for so many of the newest rows. */
const NEWEST = 50;
const NEWEST_MS = 700;
const TYPING_MS = 300;
const FETCHED = ["text", "source", "session", "model", "tokens_in", "tokens_out", "usd"];

export class DispatchesView {
  /** `states` narrows the list for good; empty lets the person choose. */
  constructor(model, open, { label, states, empty }) {
    this.model = model;
    this.open = (row) => open(row.dispatch_id);
    this.label = label;
    this.fixed = states;
    this.empty = empty;
    this.columns = "cols-dispatches";
    this.heads = [["", "", "select"], ["state"], ["agent"], ["said, and what became of it"], ["accepted", "num"], ["cost", "num"], ["", "", "decide"]];
    this.agent = "";
    this.state = "";
    this.words = "";
    this.follower = new Follower();
    this.selected = new Set();
    this.cursor = null;
    this.loading = false;
    this.problem = null;
    this.asked = 0;
    this.changed = () => {};
    this.askNewest = throttled(NEWEST_MS, () => this.#newest());
    this.askAgain = throttled(4 * NEWEST_MS, () => this.load());
  }

  key(row) {
    return row.dispatch_id;
  }

  tools(changed) {
    this.changed = changed;
    const tools = [this.#search(), this.#agentChoice()];
    if (this.fixed.length !== 1) tools.push(this.#stateChoice());
    this.bulk = el("span", { className: "bulk" });
    tools.push(el("span", { className: "gap" }), this.bulk);
    this.#drawBulk();
    return tools;
  }

  #search() {
    const search = el("input", {
      type: "search",
      className: "words",
      placeholder: "Search text, id, session, source, model",
      "aria-label": "Search text, id, session, source or model",
      "aria-keyshortcuts": "/",
      value: this.words,
      autocomplete: "off",
    });
    let timer = 0;
    search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        this.words = search.value.trim();
        this.load();
      }, TYPING_MS);
    });
    return search;
  }

  #agentChoice() {
    const names = [...this.model.agents.keys()].slice(0, 1000);
    if (this.agent && !names.includes(this.agent)) names.unshift(this.agent);
    const choice = el("select", { "aria-label": "Only dispatches of this agent", className: "agent-choice" });
    const fill = (known) =>
      choice.replaceChildren(
        el("option", { value: "" }, "any agent"),
        ...known.map((name) => el("option", { value: name, selected: name === this.agent }, name)),
      );
    fill(names);
    // The agents may come after the list.
    choice.addEventListener("focus", () => {
      if (choice.options.length < 2) fill([...this.model.agents.keys()].slice(0, 1000));
    });
    choice.addEventListener("change", () => {
      this.agent = choice.value;
      this.load();
    });
    return choice;
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

  /** What may be done to the selected rows, or to all of the dead letters. */
  #drawBulk() {
    const rows = this.follower.rows.filter((row) => this.selected.has(row.dispatch_id));
    const all = this.fixed[0] === "dead" && !rows.length && this.follower.rows.length;
    const buttons = all
      ? [["Replay all", "Replay", "retry", this.follower.rows]]
      : BULK.map(([word, verb, states]) => {
          const able = rows.filter((row) => states.includes(row.state));
          return [`${word} ${count(able.length)}`, word, verb, able];
        }).filter(([, , , able]) => able.length);
    const wanted = JSON.stringify([rows.length, ...buttons.map(([label]) => label)]);
    if (!this.bulk || this.bulk.dataset.wanted === wanted) return;
    this.bulk.dataset.wanted = wanted;
    this.bulk.replaceChildren(
      ...(rows.length ? [el("b", { role: "status" }, `${count(rows.length)} selected`)] : []),
      ...buttons.map(([label, word, verb, able]) =>
        action(label, async () => {
          if (await operateAll(all ? this.follower.rows : able, word, verb)) this.clearSelection();
        }),
      ),
      ...(rows.length ? [action("Clear", async () => this.clearSelection())] : []),
    );
  }

  /** Select the row, or no longer. */
  select(row) {
    if (!this.selected.delete(row.dispatch_id)) this.selected.add(row.dispatch_id);
    this.changed();
  }

  clearSelection() {
    this.selected.clear();
    this.changed();
  }

  get states() {
    return this.state ? [this.state] : this.fixed;
  }

  rows() {
    this.#drawBulk();
    return this.follower.rows;
  }

  hint(rows) {
    if (rows.length) return "";
    if (this.problem) return `This could not be fetched. ${this.problem.message}`;
    if (this.loading) return "Asking the ledger ...";
    if (this.cursor) return "Nothing found so far; scroll to look further back.";
    return this.words || this.agent || this.state ? "Nothing matches." : this.empty;
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

  #ask(limit, cursor) {
    const query = { agent: this.agent, state: this.states, words: this.words, limit, cursor };
    return getWithContent("dispatches", query);
  }

  async #page(asked, cursor) {
    this.loading = true;
    this.changed();
    try {
      const page = await this.#ask(PAGE, cursor);
      if (asked !== this.asked) return;
      this.problem = null;
      if (cursor === null) this.follower.clear();
      this.follower.add(page.dispatches);
      this.cursor = page.cursor;
    } catch (problem) {
      if (asked !== this.asked) return;
      this.cursor = null;
      this.problem = problem;
      failed(problem);
    } finally {
      if (asked === this.asked) this.loading = false;
      this.changed();
    }
  }

  /** What events do not say: texts, tokens and costs of the newest rows. */
  async #newest() {
    const asked = this.asked;
    const page = await this.#ask(NEWEST, null).catch(() => null);
    if (!page || asked !== this.asked) return;
    for (const news of page.dispatches) {
      const row = this.follower.byId.get(news.dispatch_id);
      if (!row) continue;
      for (const name of FETCHED) if (news[name] !== undefined) row[name] = news[name];
    }
    this.changed();
  }

  /** Follow the bus: rows change, come and go, without asking the API. */
  take(events) {
    const mine = events.filter((event) => !this.agent || event.agent === this.agent);
    if (this.follower.take(mine, this.states, !this.words) && !this.words) this.askNewest();
    if (this.words && mine.some((event) => event.type === "dispatch_queued")) this.askAgain();
    this.changed();
  }

  cells(row) {
    const box = el("input", { type: "checkbox", tabIndex: -1 });
    const cells = {
      select: el("span", { className: "box" }, box),
      state: twoLines("", "badge", "id"),
      agent: twoLines("", "name"),
      said: twoLines("", "said-line"),
      accepted: twoLines("num"),
      cost: twoLines("num"),
      does: el("span", { className: "does" }),
    };
    cells.select.addEventListener("click", (event) => event.stopPropagation());
    box.addEventListener("change", () => this.select(row()));
    cells.does.addEventListener("click", (event) => event.stopPropagation());
    return cells;
  }

  fill(cells, row) {
    const box = cells.select.firstChild;
    box.checked = this.selected.has(row.dispatch_id);
    box.setAttribute("aria-label", `Select ${shortId(row.dispatch_id)}`);
    const [badge, id] = cells.state.children;
    badge.dataset.state = row.state;
    say(badge, `${stateSign(row.state)} ${row.state}`);
    say(id, shortId(row.dispatch_id));
    id.title = row.dispatch_id;
    pair(cells.agent, row.agent, row.session ? `⌁ ${row.session}` : (row.source ?? ""));
    cells.agent.title = [row.session && `session ${row.session}`, row.source && `from ${row.source}`]
      .filter(Boolean)
      .join(", ");
    const why = reason(row);
    pair(cells.said, shown() ? (row.text ?? "") : "", why);
    cells.said.title = why;
    cells.said.dataset.bad = row.error ? "1" : "0";
    const took = row.elapsed_s === undefined ? "" : duration(row.elapsed_s);
    pair(cells.accepted, clock(row.accepted_at), [row.attempt > 1 ? `try ${row.attempt}` : "", took].filter(Boolean).join(" · "));
    const tokens = (row.tokens_in ?? 0) + (row.tokens_out ?? 0);
    pair(cells.cost, row.usd ? usd(row.usd) : "–", tokens ? `${count(tokens)} tok` : "");
    this.#buttons(cells.does, row);
  }

  #buttons(node, row) {
    const verbs = ["dead", "parked", "retrying"].includes(row.state) ? VERBS[row.state] : [];
    const some = row.state === "retrying" ? verbs.slice(0, 1) : verbs;
    const wanted = some.map(([, verb]) => verb).join(" ");
    if (node.dataset.verbs === wanted) return;
    node.dataset.verbs = wanted;
    node.replaceChildren(
      ...some.map(([word, verb]) => {
        const label = `${word} ${shortId(row.dispatch_id)} of ${row.agent}`;
        const button = action(word, () => operate(row.dispatch_id, verb), { "aria-label": label });
        button.className = "small";
        button.tabIndex = -1;
        return button;
      }),
    );
  }
}

/** What is most worth knowing of a dispatch: its trouble, or its place in a chain. */
function reason(row) {
  if (row.error) return [row.stage, row.error].filter(Boolean).join(": ");
  if (row.chain && row.chain_stage) {
    return `chain ${row.chain}, stage ${row.chain_stage}${row.chain_stages ? ` of ${row.chain_stages}` : ""}`;
  }
  return row.model ?? "";
}
