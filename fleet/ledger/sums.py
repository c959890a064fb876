"""Charts of the last hour, day and week, from the sums that the store keeps.

The scripts that move dispatches add to them, so the charts survive every restart and are the same
in every process. They are of the whole fleet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, get_args

from fleet.ledger.views import rfc3339
from fleet.store import Store, keys
from fleet.store.connection import reachable

Span = Literal["hour", "day", "week"]
SPANS: tuple[Span, ...] = get_args(Span)
_BAD = ("dead", "expired", "dropped")


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a span is cut: seconds of one sum, sums in a bucket, and buckets."""

    size_s: int
    per_bucket: int
    buckets: int


_SHAPES: dict[Span, _Shape] = {
    "hour": _Shape(60, 1, 60),
    "day": _Shape(900, 1, 96),
    "week": _Shape(900, 4, 168),
}


def read(store: Store, span: Span) -> dict[str, Any]:
    """The buckets of a span in which anything happened, each with its place from the oldest."""
    shape = _SHAPES[span]
    bucket_s = shape.size_s * shape.per_bucket
    with reachable():
        newest = int(store.clock.now_ms() / 1000) // bucket_s
        oldest = newest - shape.buckets + 1
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
    return {
        "span": span,
        "from": rfc3339(oldest * bucket_s * 1000),
        "bucket_s": bucket_s,
        "places": shape.buckets,
        "buckets": buckets,
    }


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
