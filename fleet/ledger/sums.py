"""Charts of the last hour, day and week, from the sums that the store keeps.

The scripts that move dispatches add to the sums, so the charts survive every restart and are the
same in every process. Sums are of the whole fleet. The charts of one agent are read from the
dispatches of that agent that have ended and are kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, Literal, get_args

from fleet.ledger import views
from fleet.ledger.views import rfc3339
from fleet.store import Store, keys
from fleet.store.connection import reachable

Span = Literal["hour", "day", "week"]
SPANS: tuple[Span, ...] = get_args(Span)
_BAD = ("dead", "expired", "dropped")
#: Dispatches of one agent that are read, newest first.
AGENT_SEEN_MAX = 2000
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a span is cut: seconds of one sum, sums in a bucket, and buckets."""

    size_s: int
    per_bucket: int
    buckets: int

    @property
    def bucket_s(self) -> int:
        """Seconds of a bucket."""
        return self.size_s * self.per_bucket

    def oldest(self, now_ms: float) -> int:
        """The number of the oldest bucket, counted from 1970."""
        return int(now_ms / 1000) // self.bucket_s - self.buckets + 1


_SHAPES: dict[Span, _Shape] = {
    "hour": _Shape(60, 1, 60),
    "day": _Shape(900, 1, 96),
    "week": _Shape(900, 4, 168),
}


def read(store: Store, span: Span) -> dict[str, Any]:
    """The buckets of a span in which anything happened, each with its place from the oldest."""
    shape = _SHAPES[span]
    with reachable():
        oldest = shape.oldest(store.clock.now_ms())
        first = oldest * shape.per_bucket
        pipe = store.client.pipeline(transaction=False)
        for number in range(shape.buckets * shape.per_bucket):
            pipe.hgetall(keys.sums(shape.size_s, first + number))
        sums = pipe.execute()
    buckets = []
    for place in range(shape.buckets):
        parts = sums[place * shape.per_bucket : (place + 1) * shape.per_bucket]
        if any(parts):
            buckets.append({"place": place, **_bucket(parts)})
    return _history(span, oldest, buckets, whole=True)


def read_agent(store: Store, span: Span, agent: str) -> dict[str, Any]:
    """The same of one agent: a dispatch counts where it has ended, with all of its attempts.

    `whole` is false when the agent has more dispatches than are read.
    """
    shape = _SHAPES[span]
    with reachable():
        oldest = shape.oldest(store.clock.now_ms())
    rows: dict[int, list[Mapping[str, Any]]] = {}
    seen, cursor = 0, None
    while seen < AGENT_SEEN_MAX:
        limit = min(_CHUNK, AGENT_SEEN_MAX - seen)
        page = views.find(store, agent=agent, limit=limit, cursor=cursor)
        for row in page.dispatches:
            if ended_at := row.get("ended_at"):
                ended_s = int(datetime.fromisoformat(ended_at).timestamp())
                rows.setdefault(ended_s // shape.bucket_s - oldest, []).append(row)
        seen += len(page.dispatches)
        cursor = page.cursor
        if cursor is None:
            break
    buckets = [
        {"place": place, **_ended(rows[place])}
        for place in sorted(rows)
        if 0 <= place < shape.buckets
    ]
    return _history(span, oldest, buckets, whole=cursor is None)


def _history(span: Span, oldest: int, buckets: list[Any], *, whole: bool) -> dict[str, Any]:
    shape = _SHAPES[span]
    return {
        "span": span,
        "from": rfc3339(oldest * shape.bucket_s * 1000),
        "bucket_s": shape.bucket_s,
        "places": shape.buckets,
        "whole": whole,
        "buckets": buckets,
    }


def _ended(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of the dispatches that ended in one bucket."""
    sums: dict[str, Any] = dict.fromkeys(
        ("completed", "ended_badly", "cancelled", "failed", "turns", "tokens_in", "tokens_out"), 0
    )
    usd, times = 0.0, []
    for row in rows:
        state, attempts = row["state"], row.get("attempt", 0)
        sums["completed"] += state == "completed"
        sums["ended_badly"] += state in _BAD
        sums["cancelled"] += state == "cancelled"
        # Whatever has not died did well in its last attempt, or had none.
        sums["failed"] += attempts if state == "dead" else max(0, attempts - 1)
        sums["turns"] += attempts
        sums["tokens_in"] += row.get("tokens_in", 0)
        sums["tokens_out"] += row.get("tokens_out", 0)
        usd += row.get("usd", 0.0)
        if "elapsed_s" in row:
            times.append(row["elapsed_s"])
    times.sort()
    p50, p95 = (times[int(share * (len(times) - 1))] if times else None for share in (0.5, 0.95))
    return {**sums, "turn_p50_s": p50, "turn_p95_s": p95, "usd": round(usd, 6)}


def _bucket(parts: list[Mapping[str, str]]) -> dict[str, Any]:
    """The figures of one bucket."""
    sums: dict[str, int] = {}
    for part in parts:
        for name, value in part.items():
            sums[name] = sums.get(name, 0) + int(value)

    def of(*names: str) -> int:
        return sum(sums.get(name, 0) for name in names)

    turns = {
        float(name.partition(".")[2]): number
        for name, number in sums.items()
        if name.startswith("turn.")
    }
    return {
        "completed": of("outcome.completed", "outcome.unverified"),
        "ended_badly": of(*(f"outcome.{state}" for state in _BAD)),
        "cancelled": of("outcome.cancelled"),
        "failed": sum(number for name, number in sums.items() if name.startswith("failed.")),
        "turns": sum(turns.values()),
        "turn_p50_s": _percentile(turns, 0.5),
        "turn_p95_s": _percentile(turns, 0.95),
        "tokens_in": of("tokens_in"),
        "tokens_out": of("tokens_out"),
        "usd": of("usd") / 1e6,
    }


def _percentile(turns: Mapping[float, int], share: float) -> float | None:
    """About the time below which a share of the turns lies, in seconds; None without turns.

    `turns` has their number by the upper bound, in milliseconds, of the histogram's class.
    """
    bounds = sorted(turns)
    sums = list(accumulate(turns[bound] for bound in bounds))
    for place, total in enumerate(sums):
        if total >= share * sums[-1] and total:
            # Within a class, turns are taken as spread evenly.
            low = bounds[place - 1] if place else 0.0
            high = bounds[place] if bounds[place] != float("inf") else 2 * low
            before = total - turns[bounds[place]]
            part = (share * sums[-1] - before) / turns[bounds[place]]
            return round((low + part * (high - low)) / 1000, 3)
    return None
