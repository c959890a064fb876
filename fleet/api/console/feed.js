/** The live feed: what happens, newest first. */

import { byId, el, prose, say } from "./dom.js";
import { clock, duration, shortId, stateSign } from "./format.js";

/** Entries in the page; older ones are in the ledger. */
const SHOWN = 250;
/** More than this in one second would drown a listener: then only a summary is read out. */
const READ_OUT = 3;
const SUMMARY_MS = 5000;

const SIGNS = {
  event_accepted: "→",
  agent_online: "+",
  agent_offline: "−",
  breaker_opened: "!",
  breaker_closed: "✓",
  alert: "!",
  delivery_verified: "✓",
  delivery_dropped: "✕",
  resync: "⟳",
};

const TROUBLE = new Set([
  ...["dispatch_failed", "dispatch_dead", "dispatch_dropped", "dispatch_expired", "alert"],
  ...["delivery_dropped", "agent_offline", "breaker_opened", "resync"],
]);

export class Feed {
  /** `open(event)` is called for the entry that was chosen. */
  constructor(open) {
    this.open = open;
    this.list = byId("feed-list");
    this.log = byId("feed-log");
    this.holdButton = byId("feed-hold");
    this.show = byId("feed-show");
    this.waiting = [];
    this.frame = 0;
    this.held = false;
    this.since = { at: performance.now(), number: 0, kinds: new Map() };
    this.holdButton.addEventListener("click", () => this.hold());
    this.show.addEventListener("change", () => {
      this.list.dataset.show = this.show.value;
    });
    this.log.addEventListener("keydown", (event) => this.#key(event));
    setInterval(() => this.#summarise(), SUMMARY_MS);
  }

  /** Add events, oldest first. */
  add(events) {
    for (const event of events) this.waiting.push(event);
    if (this.waiting.length > 2 * SHOWN) this.waiting.splice(0, this.waiting.length - SHOWN);
    for (const { type } of events) {
      this.since.kinds.set(type, (this.since.kinds.get(type) ?? 0) + 1);
    }
    this.since.number += events.length;
    if (this.held) say(this.holdButton, `Go on (${this.waiting.length} new)`);
    else this.#soon();
  }

  /** A line of the page's own, for what happened to its connection. */
  note(text) {
    this.add([{ type: "resync", reason: text, time: new Date().toISOString() }]);
  }

  /** Stop or go on. */
  hold(held = !this.held) {
    this.held = held;
    this.holdButton.setAttribute("aria-pressed", held);
    say(this.holdButton, held ? "Go on" : "Hold");
    if (!held) this.#soon();
  }

  #soon() {
    // A hidden page draws no frames; what waits is bounded until it is seen again.
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.#draw();
    });
  }

  #draw() {
    const news = this.waiting.splice(0).slice(-SHOWN);
    this.log.setAttribute("aria-live", news.length > READ_OUT ? "off" : "polite");
    const made = document.createDocumentFragment();
    for (const event of news.reverse()) made.append(this.#entry(event));
    this.list.prepend(made);
    while (this.list.childElementCount > SHOWN) this.list.lastElementChild.remove();
  }

  #entry(event) {
    const kind = event.type.replace(/^dispatch_/, "");
    // Nobody's word that an outcome arrived is no success.
    const unverified = event.type === "delivery_verified" && event.verification === "timeout_fallback";
    const sign = unverified ? "?" : SIGNS[event.type] ?? stateSign(FEED_STATES[kind] ?? kind);
    const children = [
      el("time", { dateTime: event.time }, clock(event.time)),
      el("span", { className: "sign-of", "aria-hidden": "true" }, sign),
      el("span", { className: "kind" }, unverified ? "delivery unverified" : words(kind)),
      el("span", { className: "who" }, event.agent ?? "", took(event)),
      el("span", { className: "why" }, ...prose(why(event))),
      event.dispatch_id ? link(event.dispatch_id) : null,
    ];
    const data = { kind: event.type, trouble: unverified || TROUBLE.has(event.type) ? "1" : "0" };
    if (!event.dispatch_id) return el("li", { data }, ...children);
    const item = el("li", { className: "opens", data }, ...children);
    item.addEventListener("click", () => this.open(event));
    item.tabIndex = -1;
    item.dataset.dispatch = event.dispatch_id;
    return item;
  }

  /** Arrows walk over the entries that can be opened. */
  #key(event) {
    const at = document.activeElement;
    const inside = at?.parentElement === this.list;
    if (event.key === "Enter" && inside) {
      at.click();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const back = event.key === "ArrowUp";
      let next = inside ? at : null;
      do {
        if (next === null) next = this.list.firstElementChild;
        else next = back ? next.previousElementSibling : next.nextElementSibling;
      } while (next && (next.tabIndex !== -1 || !next.offsetParent));
      if (next) next.focus();
      else if (back) this.log.focus();
    } else return;
    event.preventDefault();
  }

  #summarise() {
    const { number, kinds } = this.since;
    this.since = { number: 0, kinds: new Map() };
    if (number <= (READ_OUT * SUMMARY_MS) / 1000) return;
    const parts = [...kinds].map(([type, times]) => `${times} ${words(type)}`);
    say(byId("feed-summary"), `In the last ${SUMMARY_MS / 1000} seconds: ${parts.join(", ")}.`);
  }
}

/** Not a stop of the Tab key: arrows walk over the entries. A screen reader finds it as a link. */
function link(id) {
  const href = `#/dispatch/${encodeURIComponent(id)}`;
  return el("a", { href, className: "id", title: id, tabIndex: -1, "aria-label": `Dispatch ${shortId(id)}` }, shortId(id));
}

const FEED_STATES = { started: "active", failed: "dead" };

function words(kind) {
  return kind.replace(/^dispatch_/, "").replaceAll("_", " ");
}

function took(event) {
  if (event.type === "event_accepted") return el("i", {}, `from ${event.source}`);
  return event.elapsed_s === undefined ? "" : el("i", {}, ` ${duration(event.elapsed_s)}`);
}

function why(event) {
  const parts = [];
  if (event.attempt > 1) parts.push(`attempt ${event.attempt}`);
  if (event.stage && event.stage !== event.reason) parts.push(event.stage);
  if (event.name) parts.push(event.name);
  if (event.reason) parts.push(event.reason);
  if (event.will_retry) parts.push("will retry");
  return parts.join(" · ");
}
