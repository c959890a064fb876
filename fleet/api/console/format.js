/** Numbers, times and states as people read them. A state is a sign and a word, never only a colour. */

const STATES = {
  queued: "○",
  active: "▶",
  announcing: "▷",
  retrying: "↻",
  parked: "◆",
  completed: "✓",
  dead: "✕",
  cancelled: "⊘",
  dropped: "↓",
  expired: "◷",
};

const AGENTS = { idle: "○", busy: "▶", paused: "■", held: "◷", budget: "◷", offline: "✕", removed: "✕" };

/** States of a dispatch in the order of its life. */
export const STATE_NAMES = Object.keys(STATES);

/** The sign of a state of a dispatch. */
export function stateSign(state) {
  return STATES[state] ?? "•";
}

/** The sign of an agent's status. */
export function agentSign(status) {
  return AGENTS[status] ?? "•";
}

/** Seconds as `12 ms`, `0.24 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d`. */
export function duration(seconds) {
  if (seconds === undefined || seconds === null || Number.isNaN(seconds)) return "–";
  if (seconds < 0.1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${Number(seconds.toFixed(seconds < 1 ? 2 : 1))} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return joined(minutes, "min", Math.floor(seconds % 60), "s");
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return joined(hours, "h", minutes % 60, "min");
  return `${Math.floor(hours / 24)} d`;
}

function joined(many, unit, few, small) {
  return few ? `${many} ${unit} ${few} ${small}` : `${many} ${unit}`;
}

/** An RFC 3339 time as the clock here shows it; with the day when that is not today. */
export function clock(text, fine = false) {
  if (!text) return "–";
  const at = new Date(text);
  const time = at.toLocaleTimeString([], { hour12: false });
  const shown = fine ? `${time}.${String(at.getMilliseconds()).padStart(3, "0")}` : time;
  if (at.toDateString() === new Date().toDateString()) return shown;
  return `${at.toLocaleDateString([], { month: "short", day: "numeric" })} ${shown}`;
}

/** 1234567 as `1,234,567`. */
export function count(number) {
  return (number ?? 0).toLocaleString("en");
}

/** US dollars: whole cents from a dollar on, else what is needed to see something. */
export function usd(amount) {
  if (!amount) return "$0";
  if (amount < 0.0001) return "<$0.0001";
  return `$${amount < 1 ? amount.toPrecision(2) : amount.toFixed(2)}`;
}

/** The first part of an id: enough to tell it from others on a screen. */
export function shortId(id) {
  return id ? id.slice(0, 8) : "–";
}

/** Seconds between two RFC 3339 times, or null when one is missing. */
export function between(from, to) {
  if (!from || !to) return null;
  return Math.max(0, (Date.parse(to) - Date.parse(from)) / 1000);
}
