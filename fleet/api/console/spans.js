/** Charts of an hour, a day or a week: of the whole fleet, or of one agent. */

import { get } from "./api.js";
import { el, prose, svg } from "./dom.js";
import { clock, count, duration, usd } from "./format.js";

const HEIGHT = 100;
const FRESH_MS = { hour: 20_000, day: 60_000, week: 300_000 };
const NAMES = { hour: "Last hour", day: "Last day", week: "Last week" };
const CHOSEN = "fleet-span";

/** [title, how its sum or newest value is shown, lines or bars: [name, class, value of a bucket]]. */
const CHARTS = [
  {
    title: "Ended",
    words: (sums) => `${count(sums("completed"))} completed, ${count(sums("ended_badly"))} badly`,
    shows: count,
    bars: [
      ["completed", "bar-good", (one) => one.completed],
      ["ended badly", "bar-bad", (one) => one.ended_badly],
    ],
  },
  {
    title: "Turns",
    words: (sums) => `${count(sums("turns"))} turns, ${count(sums("failed"))} failed`,
    shows: duration,
    lines: [
      ["p50", "line-p50", (one) => one.turn_p50_s],
      ["p95", "line-p95", (one) => one.turn_p95_s],
    ],
  },
  {
    title: "Cost",
    words: (sums) => usd(sums("usd")),
    shows: usd,
    bars: [["dollars", "bar-accent", (one) => one.usd]],
  },
  {
    title: "Tokens",
    words: (sums) => `${count(sums("tokens_in"))} in, ${count(sums("tokens_out"))} out`,
    shows: count,
    bars: [
      ["in", "bar-accent", (one) => one.tokens_in],
      ["out", "bar-warn", (one) => one.tokens_out],
    ],
  },
];

/** A block of charts with a choice of the span; fetched while it is in the page. */
export class Spans {
  /** `id` tells the block from others; `heading` is the tag of its title. */
  constructor({ id = "spans", heading = "h2", title = "Over time" } = {}) {
    this.agent = "";
    this.span = localStorage.getItem(CHOSEN) ?? "hour";
    if (!(this.span in NAMES)) this.span = "hour";
    this.charts = el("div", { className: "span-charts" });
    this.choices = Object.entries(NAMES).map(([span, name]) => {
      const button = el("button", { type: "button", className: "small" }, name);
      button.addEventListener("click", () => this.#choose(span));
      button.dataset.span = span;
      return button;
    });
    this.node = el(
      "section",
      { className: "spans", "aria-labelledby": `${id}-title` },
      el("header", {}, el(heading, { id: `${id}-title` }, title), el("span", { className: "choice" }, ...this.choices)),
      this.charts,
    );
    this.fetched = new Map();
    this.#press();
    setInterval(() => this.refresh(), 5000);
  }

  /** Show one agent's; the block itself. */
  of(agent) {
    if (agent !== this.agent) {
      this.agent = agent;
      this.fetched.clear();
      this.charts.replaceChildren();
    }
    // The block is in the page only after this.
    requestAnimationFrame(() => this.refresh());
    return this.node;
  }

  /** Fetch what is old, where the block is seen. */
  async refresh() {
    const { span, agent } = this;
    const found = this.fetched.get(span);
    if (document.hidden || !this.node.isConnected || !this.node.offsetParent) return;
    if (found && performance.now() - found.at < FRESH_MS[span]) return;
    const at = performance.now();
    // Nobody asks twice while an answer is on its way.
    this.fetched.set(span, { ...found, at });
    const made = await get("history", { span, agent }).then(
      (history) => ({ at, history }),
      (problem) => ({ at, problem }),
    );
    if (agent !== this.agent) return;
    this.fetched.set(span, made);
    this.#draw();
  }

  #choose(span) {
    this.span = span;
    localStorage.setItem(CHOSEN, span);
    this.#press();
    this.#draw();
    this.refresh();
  }

  #press() {
    for (const button of this.choices) button.setAttribute("aria-pressed", button.dataset.span === this.span);
  }

  #draw() {
    const { history, problem } = this.fetched.get(this.span) ?? {};
    if (problem) this.charts.replaceChildren(el("p", { className: "soft" }, ...prose(problem.message)));
    else if (history) this.charts.replaceChildren(...CHARTS.map((chart) => figure(chart, history)), ...cut(history));
  }
}

function cut(history) {
  return history.whole ? [] : [el("p", { className: "soft flush" }, "Of its newest 2,000 dispatches.")];
}

function figure(chart, history) {
  const parts = chart.bars ?? chart.lines;
  const sums = (name) => history.buckets.reduce((sum, one) => sum + one[name], 0);
  const tops = history.buckets.map((one) => {
    const values = parts.map(([, , of]) => of(one) ?? 0);
    return chart.bars ? values.reduce((sum, value) => sum + value, 0) : Math.max(...values);
  });
  const top = Math.max(0, ...tops);
  const said = chart.words(sums);
  const plot = svg("svg", {
    viewBox: `0 0 ${history.places} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": `${chart.title}: ${said}; at most ${chart.shows(top)} in ${duration(history.bucket_s)}`,
  });
  if (top > 0) plot.append(...(chart.bars ? bars(parts, history.buckets, top) : lines(parts, history.buckets, top)));
  const end = new Date(Date.parse(history.from) + history.places * history.bucket_s * 1000);
  return el(
    "figure",
    { className: "chart tall" },
    el("figcaption", {}, el("span", {}, chart.title, " ", el("b", { className: "now" }, said)), el("span", { className: "top" }, top > 0 ? chart.shows(top) : "")),
    el("div", { className: "plot" }, plot, top > 0 ? null : el("span", { className: "nothing" }, "nothing yet")),
    el(
      "div",
      { className: "axis" },
      el("span", {}, short(history.from)),
      el("span", {}, `by ${duration(history.bucket_s)}`),
      el("span", {}, short(end.toISOString())),
    ),
    el("div", { className: "legend" }, ...parts.map(([name, kind]) => el("span", { className: `key ${kind}` }, name))),
  );
}

function short(time) {
  return clock(time).replace(/:\d\d$/, "");
}

function bars(parts, buckets, top) {
  const drawn = parts.map(() => "");
  for (const one of buckets) {
    let base = HEIGHT;
    parts.forEach(([, , of], number) => {
      const value = of(one);
      if (!value) return;
      const height = Math.max(1.5, (value / top) * HEIGHT);
      drawn[number] += `M${one.place + 0.1} ${(base - height).toFixed(2)}h.8v${height.toFixed(2)}h-.8z`;
      base -= height;
    });
  }
  return parts.map(([, kind], number) => svg("path", { class: kind, d: drawn[number] }));
}

function lines(parts, buckets, top) {
  return parts.map(([, kind, of]) => {
    let path = "";
    let last = null;
    for (const one of buckets) {
      const value = of(one);
      if (value === null || value === undefined) continue;
      const y = (HEIGHT - 2 - (value / top) * (HEIGHT - 14)).toFixed(2);
      // A bucket alone is a dash; the next one in a row is joined to it.
      path += last === one.place - 1 ? `L${one.place + 0.5} ${y}` : `M${one.place} ${y}h1`;
      last = one.place;
    }
    return svg("path", { class: `line ${kind}`, d: path, "vector-effect": "non-scaling-stroke" });
  });
}
