/**
 * The bus as a stream of batches of events, over every restart and outage.
 *
 * The id of the last event is kept and sent with each new connection, so the API goes on exactly
 * there; when it cannot, it says `resync_required` and the state is fetched anew. `fetch` is used
 * instead of EventSource because that can send no token but in the address.
 */

import { credentials, needToken } from "./api.js";

/** The API sends at least a comment each 15 s; after this the connection is dead. */
const QUIET_MS = 40000;
const RETRY_MS = [250, 500, 1000, 2000, 4000];

export class Bus {
  /**
   * `onEvents(events)`, `onOpen()` after each connection, `onAlive()` at each sign of life,
   * `onResync(reason)`, `onLink(state)`.
   */
  constructor(listener) {
    this.listener = listener;
    this.lastId = "";
    this.stopped = false;
    this.failures = 0;
    this.wake = () => {};
    addEventListener("online", () => this.wake());
    addEventListener("pagehide", () => this.stop());
    addEventListener("pageshow", (event) => {
      if (event.persisted && this.stopped) this.run();
    });
  }

  /** Follow until `stop`; begins behind `lastId`, or with the next event when that is empty. */
  async run() {
    this.stopped = false;
    while (!this.stopped) {
      try {
        await this.#connection();
      } catch (error) {
        if (this.stopped) return;
        this.listener.onLink("away", error.message);
      }
      if (this.stopped) return;
      await this.#pause(RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)]);
    }
  }

  stop() {
    this.stopped = true;
    this.aborter?.abort();
  }

  async #connection() {
    this.listener.onLink("connecting");
    this.aborter = new AbortController();
    const { signal } = this.aborter;
    let alarm = setTimeout(() => this.aborter.abort(), QUIET_MS);
    try {
      const headers = { Accept: "text/event-stream", ...credentials() };
      if (this.lastId) headers["Last-Event-ID"] = this.lastId;
      const answer = await fetch("bus", { headers, signal, cache: "no-store" });
      if (answer.status === 401 && (await needToken())) this.failures = 0;
      if (!answer.ok) throw new Error(`The bus answered ${answer.status}.`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      const parse = parser((id) => {
        this.lastId = id;
      });
      this.listener.onLink("live");
      this.listener.onOpen();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new Error("The API ended the stream.");
        this.failures = 0;
        this.listener.onAlive();
        clearTimeout(alarm);
        alarm = setTimeout(() => this.aborter.abort(), QUIET_MS);
        this.#hand(parse(value));
      }
    } finally {
      clearTimeout(alarm);
      this.aborter.abort();
    }
  }

  /** Notices go out of the row of events, at the place where they came. */
  #hand(events) {
    let batch = [];
    for (const event of events) {
      if (event.type !== "resync_required") {
        batch.push(event);
        continue;
      }
      if (batch.length) this.listener.onEvents(batch);
      batch = [];
      this.listener.onResync(event.reason);
    }
    if (batch.length) this.listener.onEvents(batch);
  }

  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms * (0.75 + Math.random() / 2));
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/**
 * A function from pieces of a server-sent stream to the whole events in them; `keep` gets each id.
 * An event is its data, with the name of its kind, where it has one, as `event`.
 */
export function parser(keep) {
  let rest = "";
  let id = null;
  let name = null;
  let data = [];
  return (piece) => {
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line.startsWith("id: ")) id = line.slice(4);
      else if (line.startsWith("event: ")) name = line.slice(7);
      else if (line.startsWith("data: ")) data.push(line.slice(6));
      else if (line === "" && data.length) {
        const value = JSON.parse(data.join("\n"));
        events.push(name === null ? value : { ...value, event: name });
        if (id !== null) keep(id);
        id = name = null;
        data = [];
      }
    }
    return events;
  };
}
