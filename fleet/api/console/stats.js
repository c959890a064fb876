/** Throughput and times, computed from nothing but the events of the bus. */

/** Seconds of one bar; the pictures show `BUCKETS` of them. */
export const BUCKET_S = 5;
export const BUCKETS = 120;

/** Times kept of one bucket: percentiles of more would look the same. */
const SAMPLES_MAX = 400;
/** Dispatches whose start is awaited. */
const WAITING_MAX = 20000;

const ENDED_BADLY = new Set(["dispatch_dead", "dispatch_expired", "dispatch_dropped"]);

export class Stats {
  constructor() {
    this.buckets = new Map();
    this.queued = new Map();
    this.skewMs = 0;
  }

  /** Take one event into account. */
  add(event) {
    const at = Date.parse(event.time);
    this.skewMs = Math.max(this.skewMs, at - Date.now());
    if (event.type === "dispatch_queued") {
      if (this.queued.size >= WAITING_MAX) this.queued.delete(this.queued.keys().next().value);
      this.queued.set(event.dispatch_id, at);
      return;
    }
    const bucket = this.#bucket(at);
    if (event.type === "dispatch_started") {
      const since = this.queued.get(event.dispatch_id);
      if (since !== undefined) sample(bucket, bucket.waits, (at - since) / 1000);
      this.queued.delete(event.dispatch_id);
    } else if (event.type === "dispatch_completed") {
      bucket.completed += 1;
      if (event.elapsed_s !== undefined) sample(bucket, bucket.turns, event.elapsed_s);
    } else if (ENDED_BADLY.has(event.type)) {
      bucket.bad += 1;
      this.queued.delete(event.dispatch_id);
    } else if (event.type === "dispatch_cancelled") {
      this.queued.delete(event.dispatch_id);
    }
  }

  /** The last `BUCKETS` buckets, oldest first, null where nothing happened; the newest still fills. */
  series() {
    const newest = Math.floor((Date.now() + this.skewMs) / 1000 / BUCKET_S);
    const oldest = newest - BUCKETS + 1;
    for (const number of this.buckets.keys()) if (number < oldest) this.buckets.delete(number);
    return Array.from({ length: BUCKETS }, (_, place) => this.buckets.get(oldest + place) ?? null);
  }

  #bucket(at) {
    const number = Math.floor(at / 1000 / BUCKET_S);
    let bucket = this.buckets.get(number);
    if (!bucket) {
      bucket = { completed: 0, bad: 0, turns: [], waits: [], seen: 0 };
      this.buckets.set(number, bucket);
    }
    return bucket;
  }
}

/** Keep a fair sample of the values, whatever their number. */
function sample(bucket, values, value) {
  bucket.seen += 1;
  if (values.length < SAMPLES_MAX) values.push(value);
  else if (Math.random() < SAMPLES_MAX / bucket.seen) {
    values[Math.floor(Math.random() * SAMPLES_MAX)] = value;
  }
}

/** The value below which the part `share` of `values` lies, or null without values. */
export function percentile(values, share) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}
