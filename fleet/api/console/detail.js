/** The panel with one agent, dispatch or session, kept up to date while it is open. */

import { agentPanel } from "./agentpanel.js";
import { dispatchPath, get } from "./api.js";
import { chainPlan, compose } from "./compose.js";
import { getWithContent, onChange, shown } from "./content.js";
import { conversation, fetchConversation } from "./conversation.js";
import { action, byId, el, prose, throttled } from "./dom.js";
import { eventsOf } from "./history.js";
import { Listener } from "./listen.js";
import { decisionForm, dispatchPanel } from "./record.js";
import { Spans } from "./spans.js";

const REFRESH_MS = 400;
/** Steps are not on the bus: a running turn is asked for them. */
const RUNNING_MS = 1500;
const AT_END_PX = 8;

export class Detail {
  /** `open(kind)(id)` and `list(agent)` change the address, which changes the panel. */
  constructor(model, { open, list }) {
    this.model = model;
    this.open = open;
    this.list = list;
    this.node = byId("detail");
    this.spans = new Spans({ id: "agent-spans", heading: "h3", title: "Its work over time" });
    this.kind = null;
    this.id = null;
    this.refresh = throttled(REFRESH_MS, () => this.#fetch());
    model.addEventListener("agents", () => {
      if (this.kind === "agent") this.#draw();
    });
    onChange(() => this.kind && this.refresh());
    setInterval(() => {
      const running = this.kind === "dispatch" && this.record?.state === "active";
      if (running && !document.hidden) this.refresh();
    }, RUNNING_MS);
  }

  /** Show one; `kind` is `agent`, `dispatch`, `session`, or null for nothing. */
  show(kind, id) {
    if (kind === this.kind && id === this.id) return;
    Object.assign(this, { kind, id, record: null, problem: null, past: null });
    Object.assign(this, { plan: null, config: null, found: null, decision: null, unfolded: new Set() });
    this.#listen(false);
    const inside = this.node.contains(document.activeElement);
    this.node.hidden = !kind;
    byId("side").setAttribute("aria-label", kind ? "What is open" : "Live feed");
    document.body.classList.toggle("with-detail", Boolean(kind));
    if (!kind) {
      if (inside) focusList();
      return;
    }
    this.#draw();
    this.node.scrollTop = 0;
    this.node.focus({ preventScroll: true });
    this.refresh();
  }

  take(events) {
    const mine = (event) =>
      this.kind === "dispatch" ? event.dispatch_id === this.id : this.kind === "session" && event.session === this.id;
    if (events.some(mine)) this.refresh();
  }

  async #fetch() {
    const { kind, id } = this;
    try {
      if (kind === "dispatch") await this.#fetchDispatch(id);
      else if (kind === "session") await this.#fetchSession(id);
      else if (kind === "agent") await this.#fetchConfig(id);
    } catch (problem) {
      if (this.id !== id) return;
      this.problem = problem;
    }
    if (this.id !== id || this.kind !== kind) return;
    this.#draw();
    if (kind === "dispatch" && this.record?.attempt > 1 && this.past === null) this.#remember(this.record);
  }

  async #fetchDispatch(id) {
    const record = await getWithContent(dispatchPath(id));
    const plan = record.chain && !this.plan ? await chainPlan(record.chain) : this.plan;
    if (this.id !== id) return;
    Object.assign(this, { record, plan, problem: null });
    if (record.state !== "parked") this.decision = null;
    else this.decision ??= decisionForm(id, () => this.refresh());
    this.#listen(shown() && record.state === "active");
  }

  async #fetchSession(id, most = this.found?.most) {
    const found = await fetchConversation(id, most);
    if (this.id === id) Object.assign(this, { found, problem: null });
  }

  async #fetchConfig(id) {
    // It is for administrators; others see the row's figures.
    const config = await get(`agents/${encodeURIComponent(id)}/config`).catch(() => null);
    if (this.id === id) this.config = config;
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
    const body = this.#body();
    const leave = action("Close", () => this.open("")(""), { "aria-keyshortcuts": "Escape" });
    const title = el("h2", { id: "detail-title" }, ...this.#title());
    const { scrollTop, scrollHeight, clientHeight } = this.node;
    // A conversation is read at its end, where the next turn comes.
    const scroll = this.kind === "session" && scrollTop + clientHeight >= scrollHeight - AT_END_PX ? Infinity : scrollTop;
    const active = document.activeElement;
    const inside = this.node.contains(active);
    this.node.replaceChildren(el("header", {}, title, leave), ...body);
    this.node.scrollTop = Math.min(scroll, this.node.scrollHeight);
    if (!inside) return;
    // What was focused is here still, or there is something of the same words.
    const same = this.node.contains(active)
      ? active
      : [...this.node.querySelectorAll("button, summary")].find((one) => one.textContent === active.textContent);
    (same ?? this.node).focus({ preventScroll: true });
  }

  #body() {
    if (this.problem) return [el("p", { className: "hint" }, ...prose(this.problem.message))];
    if (this.kind === "agent") return agentPanel(this);
    if (this.kind === "session") {
      return conversation(this.found, {
        open: this.open("dispatch"),
        reply: (turn) => compose(() => this.refresh(), { to: turn.agent, session: this.id }),
        older: async (most) => {
          await this.#fetchSession(this.id, most);
          this.#draw();
        },
      });
    }
    return this.record ? dispatchPanel(this) : [el("p", { className: "hint" }, "Asking the ledger ...")];
  }

  #title() {
    if (this.kind === "agent") return [el("span", { className: "soft" }, "Agent "), this.id];
    if (this.kind === "session") return [el("span", { className: "soft" }, "Session "), this.id];
    const agent = this.record?.agent;
    return [el("span", { className: "soft" }, "Dispatch "), agent ? `for ${agent}` : ""];
  }
}

/** The keyboard goes back to where a panel was opened from. */
export function focusList() {
  const list = byId("table").hidden ? document.querySelector(".tabs a[aria-current]") : byId("list");
  list?.focus({ preventScroll: true });
}
