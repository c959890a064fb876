/** The panel with one agent or one dispatch, kept up to date while it is open. */

import { get } from "./api.js";
import { action, byId, el, throttled } from "./dom.js";
import { agentSign, count, duration, stateSign, usd } from "./format.js";
import { switchAgent } from "./agents.js";
import { operate, VERBS } from "./dispatches.js";
import { chain } from "./chain.js";
import { eventsOf } from "./history.js";
import { Listener } from "./listen.js";
import { timeline } from "./timeline.js";

const REFRESH_MS = 400;

export class Detail {
  /** `open(kind)(id)` and `list(agent)` change the address, which changes the panel. */
  constructor(model, { open, list }) {
    this.model = model;
    this.open = open;
    this.list = list;
    this.node = byId("detail");
    this.kind = null;
    this.id = null;
    this.content = false;
    this.refresh = throttled(REFRESH_MS, () => this.#fetch());
    model.addEventListener("agents", () => {
      if (this.kind === "agent") this.#draw();
    });
  }

  /** Show one; `kind` is `agent`, `dispatch`, or null for nothing. */
  show(kind, id) {
    if (kind === this.kind && id === this.id) return;
    Object.assign(this, { kind, id, record: null, problem: null, content: false, past: null });
    this.#listen(false);
    this.node.hidden = !kind;
    document.body.classList.toggle("with-detail", Boolean(kind));
    if (!kind) return;
    this.#draw();
    this.node.focus({ preventScroll: true });
    this.refresh();
  }

  take(events) {
    if (this.kind === "dispatch" && events.some((event) => event.dispatch_id === this.id)) {
      this.refresh();
    }
  }

  async #fetch() {
    const { kind, id } = this;
    if (kind !== "dispatch") return;
    try {
      const path = `dispatches/${encodeURIComponent(id)}`;
      const record = await get(path, { content: this.content ? "1" : "" });
      if (this.id !== id) return;
      Object.assign(this, { record, problem: null });
      this.#listen(this.content && record.state === "active");
    } catch (problem) {
      if (this.id !== id) return;
      this.problem = problem;
    }
    this.#draw();
    if (this.record?.attempt > 1 && this.past === null) this.#remember(this.record);
  }

  /** The record holds its present attempt; those before are on the bus, for a while. */
  async #remember(record) {
    this.past = [];
    const past = await eventsOf(record).catch(() => []);
    if (this.id !== record.dispatch_id || !past.length) return;
    this.past = past;
    this.#draw();
  }

  /** Content is shown: let it come while it is said. */
  #listen(wanted) {
    if (!wanted) {
      this.listener?.stop();
      this.listener = null;
      this.said = null;
    } else if (!this.listener) {
      this.said = el("pre", { className: "said", "aria-live": "polite" });
      this.listener = new Listener(this.id, (text) => {
        if (this.said) this.said.textContent = text;
      });
    }
  }

  #draw() {
    const body = this.kind === "agent" ? this.#agent() : this.#dispatch();
    const leave = action("Close", () => this.open("")(""), { "aria-keyshortcuts": "Escape" });
    const title = el("h2", { id: "detail-title" }, ...this.#title());
    const scroll = this.node.scrollTop;
    const focused = document.activeElement?.textContent;
    const inside = this.node.contains(document.activeElement);
    this.node.replaceChildren(el("header", {}, title, leave), ...body);
    this.node.scrollTop = scroll;
    if (inside) {
      const same = [...this.node.querySelectorAll("button")].find((b) => b.textContent === focused);
      (same ?? this.node).focus({ preventScroll: true });
    }
  }

  #title() {
    if (this.kind === "agent") return [el("span", { className: "soft" }, "Agent "), this.id];
    const agent = this.record?.agent;
    return [el("span", { className: "soft" }, "Dispatch "), agent ? `for ${agent}` : ""];
  }

  #agent() {
    const row = this.model.agents.get(this.id);
    if (!row) return [el("p", { className: "hint" }, "There is no agent of this name.")];
    const states = Object.entries(row.states).map(([state, number]) =>
      el("span", { className: "badge", data: { state } }, `${stateSign(state)} ${count(number)} ${state}`),
    );
    return [
      el(
        "p",
        { className: "lead" },
        el("span", { className: "badge", data: { state: row.status } }, `${agentSign(row.status)} ${row.status}`),
      ),
      el(
        "div",
        { className: "buttons" },
        action(row.paused ? "Resume" : "Pause", () => switchAgent(this.model, row.agent, !row.paused)),
        action("Its dispatches", async () => this.list(row.agent)),
        row.active
          ? action("What runs", async () => this.open("dispatch")(row.active))
          : null,
      ),
      pairs([
        ["model", row.model ?? `${row.runner} runner`],
        ["holder", row.holder ? `${row.holder}, for ${duration(row.held_s)}` : "nobody"],
        ["fence", count(row.fence)],
        ["tier", row.tier],
        ["oldest wait", row.oldest_s ? duration(row.oldest_s) : "–"],
        ["spent today", row.spend ? usd(row.spend.usd) : null],
        ["tokens today", row.spend ? `${count(row.spend.tokens_in)} in, ${count(row.spend.tokens_out)} out` : null],
        ["breaker", row.breaker ?? this.model.health?.g4?.breaker],
      ]),
      el("h3", {}, "Its dispatches"),
      el("p", { className: "badges" }, ...(states.length ? states : ["none yet"])),
    ];
  }

  #dispatch() {
    if (this.problem) return [el("p", { className: "hint" }, this.problem.message)];
    const record = this.record;
    if (!record) return [el("p", { className: "hint" }, "Asking the ledger ...")];
    const tokens = record.tokens_in || record.tokens_out;
    return [
      el(
        "p",
        { className: "lead" },
        el("span", { className: "badge", data: { state: record.state } }, `${stateSign(record.state)} ${record.state}`),
        record.verification === "timeout_fallback" ? el("span", { className: "waiting" }, " unverified") : null,
        record.waiting_for ? el("span", { className: "waiting" }, ` waits for: ${record.waiting_for}`) : null,
      ),
      record.error
        ? el("p", { className: "error" }, el("b", {}, record.stage ?? "ended"), ` ${record.error}`)
        : null,
      el("div", { className: "buttons" }, this.#buttons(record)),
      pairs([
        ["id", record.dispatch_id],
        ["event", record.event_id],
        ["session", record.session],
        ["model", record.model],
        ["attempt", `${count(record.attempt)}${record.generation > 1 ? `, generation ${record.generation}` : ""}`],
        ["tokens", tokens ? `${count(record.tokens_in)} in, ${count(record.tokens_out)} out` : null],
        ["cost", record.usd ? usd(record.usd) : null],
        ["priority", record.priority],
      ]),
      el("h3", {}, "Timeline"),
      timeline(record, [...this.past ?? [], ...this.model.eventsOf(record.dispatch_id)]),
      ...chain(record, this.content),
      ...(this.said ? [el("h3", {}, "Says"), this.said] : []),
      ...(this.content ? content(record) : []),
    ].filter(Boolean);
  }

  #buttons(record) {
    const verbs = VERBS[record.state] ?? [];
    return [
      ...verbs.map(([word, verb]) =>
        action(word, async () => {
          if (await operate(record.dispatch_id, verb)) this.refresh();
        }),
      ),
      action(this.content ? "Hide content" : "Show content", async () => {
        this.content = !this.content;
        await this.#fetch();
      }),
      this.model.agents.has(record.agent)
        ? action("Its agent", async () => this.open("agent")(record.agent))
        : null,
    ];
  }
}

function pairs(rows) {
  const list = el("dl", { className: "pairs" });
  for (const [name, value] of rows) {
    if (value === null || value === undefined || value === "") continue;
    list.append(el("dt", {}, name), el("dd", {}, String(value)));
  }
  return list;
}

/** What was said, as text: the one place where content is shown, and only when it was asked for. */
function content(record) {
  const parts = [];
  const said = record.event?.data?.text ?? record.event?.text;
  if (said !== undefined) parts.push(el("h3", {}, "Event"), el("pre", {}, text(said)));
  if (record.answer !== undefined) parts.push(el("h3", {}, "Answer"), el("pre", {}, text(record.answer)));
  for (const step of record.steps) {
    if (step.result === undefined || step.result === null) continue;
    parts.push(el("h3", {}, `Step ${step.step}: ${step.name}`), el("pre", {}, text(step.result)));
  }
  return parts;
}

function text(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

