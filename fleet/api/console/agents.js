/** The agents: who there is, who holds them, what runs, waits and was spent; pause and resume. */

import { post } from "./api.js";
import { action, el, pair, say, twoLines } from "./dom.js";
import { agentSign, count, duration, shortId, usd } from "./format.js";
import { done, failed } from "./dialogs.js";

const ORDERS = {
  "as configured": null,
  "queue, longest first": (a, b) => depth(b) - depth(a),
  "spend, most first": (a, b) => (b.spend?.usd ?? 0) - (a.spend?.usd ?? 0),
  "waits, longest first": (a, b) => b.oldest_s - a.oldest_s,
  "status": (a, b) => RANK.indexOf(a.status) - RANK.indexOf(b.status),
};
const RANK = ["removed", "offline", "budget", "held", "paused", "busy", "idle"];

/** How many dispatches wait for an agent. */
export function depth(row) {
  return (row.states.queued ?? 0) + (row.states.retrying ?? 0);
}

/** Pause or resume an agent, or `all`. */
export async function switchAgent(model, name, paused) {
  try {
    await post(`agents/${encodeURIComponent(name)}/${paused ? "pause" : "resume"}`);
    const whom = name === "all" ? "All agents are" : `${name} is`;
    done(paused ? `${whom} paused: running turns go on.` : `${whom} resumed.`);
  } catch (problem) {
    failed(problem);
  }
  if (name === "all") await model.refresh();
  else model.touch(name);
}

export class AgentsView {
  constructor(model, open) {
    this.model = model;
    this.open = (row) => open(row.agent);
    this.label = "Agents";
    this.columns = "cols-agents";
    this.heads = [["status"], ["agent"], ["queue", "num"], ["running, held by"], ["today", "num"], ["", "", "pause"]];
    this.filter = "";
    this.order = "as configured";
  }

  key(row) {
    return row.agent;
  }

  /** The toolbar above the list. */
  tools(changed) {
    const filter = el("input", {
      type: "search",
      placeholder: "Filter by name, model or purpose",
      "aria-label": "Filter agents by name, model or purpose",
      className: "words",
      "aria-keyshortcuts": "/",
      value: this.filter,
    });
    filter.addEventListener("input", () => {
      this.filter = filter.value.trim().toLowerCase();
      changed();
    });
    const order = el(
      "select",
      { "aria-label": "Order of the agents" },
      ...Object.keys(ORDERS).map((name) => el("option", { selected: name === this.order }, name)),
    );
    order.addEventListener("change", () => {
      this.order = order.value;
      changed();
    });
    return [
      filter,
      order,
      el("span", { className: "gap" }),
      action("Pause all", () => switchAgent(this.model, "all", true)),
      action("Resume all", () => switchAgent(this.model, "all", false)),
    ];
  }

  /** The rows to show now. */
  rows() {
    const rows = [...this.model.agents.values()].filter(
      (row) =>
        !this.filter ||
        row.agent.toLowerCase().includes(this.filter) ||
        `${row.model ?? row.runner} ${row.description ?? ""}`.toLowerCase().includes(this.filter),
    );
    const order = ORDERS[this.order];
    return order ? rows.sort(order) : rows;
  }

  hint(rows) {
    if (rows.length) return "";
    return this.model.agents.size ? "No agent matches the filter." : "Waiting for the API ...";
  }

  cells(row) {
    const cells = {
      status: el("span", { className: "badge" }),
      agent: twoLines("", "name"),
      queue: twoLines("num"),
      running: twoLines("", "id"),
      spend: twoLines("num"),
      does: el("span", { className: "does" }),
    };
    const toggle = action("", () => {
      const { agent, paused } = row();
      return switchAgent(this.model, agent, !paused);
    });
    toggle.tabIndex = -1;
    toggle.className = "small";
    cells.does.append(toggle);
    return cells;
  }

  fill(cells, row) {
    cells.status.dataset.state = row.status;
    say(cells.status, `${agentSign(row.status)} ${row.status}`);
    const runs = row.model ?? `${row.runner ?? "no"} runner`;
    pair(cells.agent, row.agent, [row.description, runs].filter(Boolean).join(" · "));
    cells.agent.title = runs;
    const waiting = depth(row);
    pair(cells.queue, count(waiting), waiting && row.oldest_s ? `oldest ${duration(row.oldest_s)}` : "");
    cells.queue.classList.toggle("zero", !waiting);
    const turns = row.running > 1 ? `${count(row.running)} turns` : shortId(row.active);
    const holder = row.holder ?? "nobody holds it";
    pair(cells.running, turns, row.pool ? `pool ${row.pool} · ${holder}` : holder);
    cells.running.title = row.holder ? `held for ${duration(row.held_s)}, fence ${row.fence}` : "";
    const limit = row.budget?.usd_per_day;
    pair(cells.spend, row.spend ? usd(row.spend.usd) : "–", limit ? `of ${usd(limit)}` : "");
    const toggle = cells.does.firstChild;
    say(toggle, row.paused ? "Resume" : "Pause");
    toggle.setAttribute("aria-label", `${toggle.textContent} ${row.agent}`);
  }
}
