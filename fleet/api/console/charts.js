/** Two small pictures: how much ends, and how long it takes. Each says its newest values in words. */

import { el, say, svg } from "./dom.js";
import { duration } from "./format.js";
import { BUCKETS, BUCKET_S, percentile } from "./stats.js";

const HEIGHT = 40;
const MINUTES = (BUCKETS * BUCKET_S) / 60;

/** The figure with bars: ended dispatches each second. */
export class Throughput {
  constructor(figure) {
    this.parts = frame(figure, "Throughput", [
      ["completed", "bar-good"],
      ["ended badly", "bar-bad"],
    ]);
    this.good = svg("path", { class: "bar-good" });
    this.bad = svg("path", { class: "bar-bad" });
    this.parts.plot.append(this.good, this.bad);
  }

  draw(series) {
    const most = Math.max(0, ...series.map((one) => (one ? one.completed + one.bad : 0)));
    const top = Math.max(1, most);
    let good = "";
    let bad = "";
    series.forEach((one, place) => {
      if (!one) return;
      const low = (one.completed / top) * HEIGHT;
      const high = (one.bad / top) * HEIGHT;
      if (low) good += bar(place, HEIGHT - low, low);
      if (high) bad += bar(place, HEIGHT - low - high, high);
    });
    this.good.setAttribute("d", good);
    this.bad.setAttribute("d", bad);
    const lately = series.slice(-13, -1).filter(Boolean);
    const ended = lately.reduce((sum, one) => sum + one.completed + one.bad, 0);
    const rate = ended / (12 * BUCKET_S);
    say(this.parts.top, most ? `${Number((top / BUCKET_S).toFixed(1))}/s` : "");
    say(this.parts.now, `${Number(rate.toFixed(rate < 10 ? 1 : 0))}/s`);
    describe(this.parts, `${this.parts.now.textContent} ended over the last minute`);
  }
}

/** The figure with lines: how long turns take, and how long dispatches wait for theirs. */
export class Latency {
  constructor(figure) {
    this.parts = frame(figure, "Turns", [
      ["turn p50", "line-p50"],
      ["turn p95", "line-p95"],
      ["wait p95", "line-wait"],
    ]);
    this.lines = ["line-p50", "line-p95", "line-wait"].map((name) =>
      svg("path", { class: `line ${name}`, "vector-effect": "non-scaling-stroke" }),
    );
    this.parts.plot.append(...this.lines);
  }

  draw(series) {
    const wanted = [
      (one) => percentile(one.turns, 0.5),
      (one) => percentile(one.turns, 0.95),
      (one) => percentile(one.waits, 0.95),
    ];
    const values = wanted.map((of) => series.map((one) => (one ? of(one) : null)));
    const top = Math.max(0.001, ...values.flat());
    values.forEach((line, number) => this.lines[number].setAttribute("d", path(line, top)));
    const newest = values.map((line) => line.findLast((value) => value !== null) ?? null);
    const known = values.flat().some((value) => value !== null);
    say(this.parts.top, known ? duration(top) : "");
    say(this.parts.now, newest[0] === null ? "–" : duration(newest[0]));
    const [half, most, wait] = newest.map(duration);
    describe(this.parts, `turn p50 ${half}, p95 ${most}; wait p95 ${wait}`);
  }
}

function frame(figure, title, legend) {
  const top = el("span", { className: "top" });
  const now = el("b", { className: "now" });
  const words = el("span", { className: "unseen" });
  const plot = svg("svg", {
    viewBox: `0 0 ${BUCKETS} ${HEIGHT}`,
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  figure.replaceChildren(
    el("figcaption", {}, el("span", {}, title, " ", now), words, top),
    el("div", { className: "plot" }, plot),
    el(
      "div",
      { className: "legend" },
      ...legend.map(([name, kind]) => el("span", { className: `key ${kind}` }, name)),
      el("span", { className: "span" }, `${MINUTES} min`),
    ),
  );
  return { figure, plot, top, now, words };
}

function describe(parts, text) {
  parts.figure.title = text;
  say(parts.words, `: ${text}`);
}

function bar(place, y, height) {
  const shown = Math.max(height, 0.8);
  return `M${place + 0.1} ${(y + height - shown).toFixed(2)}h.8v${shown.toFixed(2)}h-.8z`;
}

/** A line with gaps where there is no value; a value alone is a dot. */
function path(values, top) {
  let text = "";
  let drawing = false;
  values.forEach((value, place) => {
    if (value === null) {
      drawing = false;
      return;
    }
    const y = (HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(2);
    text += drawing ? `L${place + 0.5} ${y}` : `M${place} ${y}h1`;
    drawing = true;
  });
  return text;
}
