/** What a running turn says, word by word, over lost connections. */

import { credentials } from "./api.js";
import { parser } from "./bus.js";

const RETRY_MS = 1500;

export class Listener {
  /** `onText(text)` gets all that was said so far, each time it changes. */
  constructor(dispatchId, onText) {
    this.path = `dispatches/${encodeURIComponent(dispatchId)}/stream`;
    this.onText = onText;
    this.pieces = [];
    this.lastId = "";
    this.aborter = new AbortController();
    this.#run();
  }

  stop() {
    this.aborter.abort();
  }

  async #run() {
    const { signal } = this.aborter;
    while (!signal.aborted) {
      const ended = await this.#connection(signal).catch(() => false);
      if (ended) return;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  /** True when the dispatch has ended, or cannot be listened to at all. */
  async #connection(signal) {
    const headers = { Accept: "text/event-stream", ...credentials() };
    if (this.lastId) headers["Last-Event-ID"] = this.lastId;
    const answer = await fetch(this.path, { headers, signal, cache: "no-store" });
    if (!answer.ok) return answer.status < 500;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const parse = parser((id) => {
      this.lastId = id;
    });
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return false;
      const events = parse(value);
      for (const event of events) if (this.#take(event)) return true;
      if (events.length) this.onText(this.pieces.map((piece) => piece.text).join(""));
    }
  }

  #take(event) {
    if (event.event === "outcome") return true;
    if (event.event === "resync") this.pieces = [];
    if (event.event === "reset") {
      this.pieces = this.pieces.filter(
        (piece) => piece.attempt === event.attempt && piece.step < event.step,
      );
    }
    if (event.event === "token") this.pieces.push(event);
    return false;
  }
}
