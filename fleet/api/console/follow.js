/** Rows of dispatches, kept true by the events of the bus. */

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

export class Follower {
  constructor() {
    this.byId = new Map();
    this.rows = [];
  }

  clear() {
    this.byId.clear();
    this.rows = [];
  }

  /** Older rows, behind those that are here. */
  add(older) {
    const news = older.filter((row) => !this.byId.has(row.dispatch_id));
    for (const row of news) this.byId.set(row.dispatch_id, row);
    this.rows = this.rows.concat(news);
  }

  /**
   * Apply events, oldest first; rows that leave `states` go, new ones come where `grows` says so.
   * True when anything changed.
   */
  take(events, states, grows) {
    const news = [];
    let gone = false;
    let touched = false;
    for (const event of events) {
      const state = STATE_AFTER[event.type] ?? (event.will_retry ? "retrying" : null);
      if (!event.dispatch_id || !state) continue;
      const row = this.byId.get(event.dispatch_id);
      const at = progress(state, event.attempt, event.reason === "replayed");
      const kept = !states.length || states.includes(state);
      if (row) {
        if (at < (row.at ?? progress(row.state, row.attempt))) continue;
        update(row, event, state, at);
        touched = true;
        if (!kept) {
          this.byId.delete(row.dispatch_id);
          row.gone = gone = true;
        }
      } else if (grows && kept && (event.type === "dispatch_queued" || states.length)) {
        const { dispatch_id, agent, session, chain, chain_stage } = event;
        const made = { dispatch_id, agent, session, chain, chain_stage, accepted_at: event.time };
        update(made, event, state, at);
        this.byId.set(made.dispatch_id, made);
        news.unshift(made);
      }
    }
    if (gone) this.rows = this.rows.filter((row) => !row.gone);
    if (news.length) this.rows = news.filter((row) => !row.gone).concat(this.rows);
    return touched || news.length > 0;
  }
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
