"""Metrics for Prometheus, read from the store by one script for each scrape.

Figures of the whole fleet are in the store, each counted by the script that makes its move. They
survive every restart, and every API process answers the same. Figures of this process, about its
clients, are added here. Labels are configured agents and words of the fleet, so their number is
bounded; an agent removed from the configuration disappears.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from fleet.ledger import FailureStage, State
from fleet.store import Store
from fleet.store.calls import MetricsCall
from fleet.turn.providers import is_open
from fleet.version import VERSION

#: Upper bounds of the histogram of turns in milliseconds; `commit.lua` counts by the same.
TURN_BOUNDS_MS = (
    100,
    250,
    500,
    1000,
    2500,
    5000,
    10_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    1_800_000,
)
#: States of dispatches under way; terminal states are counted as outcomes.
_LIVE = tuple(str(state) for state in State if not state.terminal)
#: `unverified`: completed, but not confirmed by a receiver, and not counted in `completed`.
_OUTCOMES = (*(str(state) for state in State if state.terminal), "unverified")

#: Values of a metric by the values of its labels, as a tuple.
Samples = Mapping[Any, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Figures of one API process about its clients, its breaker and its spool."""

    following: int = 0  #: of the bus
    max_lag: int = 0  #: entries that wait for the slowest client
    delivered: int = 0
    evicted: int = 0
    resyncs: int = 0
    listening: int = 0  #: to turns
    breaker_open: bool = False
    spooled: int | None = 0  #: events that wait for the broker; None when unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The figures in the store."""

    now_ms: float
    accepted: int
    bus_length: int
    totals: Mapping[str, int]
    counts: Mapping[str, int]
    beat_s: float | None  #: since the last tick of any periodic job
    providers: Mapping[str, bool]  #: name of a breaker -> true while it is open
    agents: Mapping[str, tuple[int, int, float, float]]  #: online, paused, running s, oldest s


def read(store: Store, agents: Sequence[str]) -> Reading:
    """Query the store. Raises BrokerUnavailable."""
    raw = json.loads(store.run(MetricsCall(agents=list(agents))))
    now_ms = float(raw["now"])
    ticks = [float(tick) for tick in _pairs(raw["beat"]).values()]
    return Reading(
        now_ms=now_ms,
        accepted=int(raw["accepted"]),
        bus_length=int(raw["bus"]),
        totals=_integers(raw["totals"]),
        counts=_integers(raw["counts"]),
        providers={
            name: is_open(json.loads(breaker), now_ms)
            for name, breaker in _pairs(raw["providers"]).items()
        },
        beat_s=max(0.0, now_ms / 1000 - max(ticks)) if ticks else None,
        agents={
            name: (online, paused, _age_s(now_ms, running), _age_s(now_ms, oldest))
            for name, (online, paused, running, oldest) in zip(agents, raw["agents"], strict=True)
        },
    )


def render(
    reading: Reading | None, clients: Clients, accept: str = "", *, whole: bool = True
) -> tuple[bytes, str]:
    """The answer to a scrape and its media type; `reading` is None while the store is down.

    Without `whole` it leaves out the figures that are of no agent.
    """
    encode, media_type = choose_encoder(accept)
    # The encoder only calls `collect`.
    body: bytes = encode(cast("CollectorRegistry", _Collector(reading, clients, whole=whole)))
    return body, media_type


class _Collector:
    """The metrics of one moment."""

    def __init__(self, reading: Reading | None, clients: Clients, *, whole: bool) -> None:
        self._reading = reading
        self._clients = clients
        self._whole = whole

    def collect(self) -> Iterator[Metric]:
        yield _gauge("up", "1 when the store answers.", {(): self._reading is not None})
        yield _gauge("build_info", "The version that answers.", {(VERSION,): 1}, "version")
        if self._whole:
            yield from _of_process(self._clients)
        if self._reading is not None:
            if self._whole:
                yield from _of_store(self._reading)
            yield from _of_agents(self._reading)
            yield from _of_turns(self._reading)


def _of_process(clients: Clients) -> Iterator[Metric]:
    yield _gauge("bus_clients", "Clients of the bus, of this process.", {(): clients.following})
    lag = {(): clients.max_lag}
    yield _gauge("bus_max_lag", "Bus entries that the slowest client has before it.", lag)
    yield _counter("bus_delivered", "Bus entries handed to clients.", {(): clients.delivered})
    yield _counter(
        "bus_evicted", "Bus clients cut off because they read nothing.", {(): clients.evicted}
    )
    yield _counter(
        "bus_resyncs", "Bus clients told to fetch the state again.", {(): clients.resyncs}
    )
    yield _gauge("stream_listeners", "Clients that listen to turns.", {(): clients.listening})
    yield _gauge("breaker_open", "1 while the broker is not asked.", {(): clients.breaker_open})
    if clients.spooled is not None:
        yield _gauge("spooled", "Events that wait for the broker on disk.", {(): clients.spooled})


def _of_store(reading: Reading) -> Iterator[Metric]:
    yield _counter("accepted", "Dispatches ever accepted.", {(): reading.accepted})
    breakers = {(name,): opened for name, opened in reading.providers.items()}
    text = "1 while a model, or a key at it, is left alone after its failures; none: it is well."
    yield _gauge("provider_breaker_open", text, breakers, "provider")
    yield _gauge("bus_entries", "Entries that the bus keeps.", {(): reading.bus_length})
    if reading.beat_s is not None:
        age = {(): reading.beat_s}
        yield _gauge("beat_age_seconds", "Since beat's last tick of any periodic job.", age)


def _of_agents(reading: Reading) -> Iterator[Metric]:
    rows = reading.agents
    states = {
        (agent, state): reading.counts.get(f"{agent}|{state}", 0)
        for agent in rows
        for state in _LIVE
    }
    yield _gauge("dispatches", "Dispatches that have not ended.", states, "agent", "state")
    for place, name, text in (
        (0, "agent_online", "1 while a worker holds the agent's lease."),
        (1, "agent_paused", "1 while the agent starts no turn."),
        (2, "running_seconds", "How long the agent's present turn runs; 0 without one."),
        (3, "oldest_seconds", "Age of the agent's oldest runnable dispatch; 0 without one."),
    ):
        yield _gauge(name, text, {(agent,): row[place] for agent, row in rows.items()}, "agent")
    changes = {(agent,): reading.totals.get(f"{agent}|holders", 0) for agent in rows}
    yield _counter("lease_changes", "How often the agent got another holder.", changes, "agent")


def _of_turns(reading: Reading) -> Iterator[Metric]:
    def totals(measure: str, unit: float = 1) -> dict[tuple[str, ...], float]:
        return {(agent,): _total(reading, agent, measure) / unit for agent in reading.agents}

    def split(prefix: str, words: Iterable[str]) -> dict[tuple[str, ...], float]:
        return {
            (agent, word): _total(reading, agent, prefix + word)
            for word in words
            for agent in reading.agents
        }

    ended = split("outcome.", _OUTCOMES)
    yield _counter("outcomes", "Dispatches that ended.", ended, "agent", "outcome")
    verified = split("delivery.", ("ack", "echo", "timeout_fallback"))
    text = "Receivers that confirmed an outcome, or did not in time."
    yield _counter("deliveries", text, verified, "agent", "verification")
    typed = split("injected.", ("echo", "timeout_fallback"))
    text = "Events typed into terminals that echoed them, or did not in time."
    yield _counter("injections", text, typed, "agent", "verification")
    yield _counter("attempts", "Turns that were started.", totals("attempts"), "agent")
    failed = split("failed.", map(str, FailureStage))
    yield _counter("failures", "Attempts that failed.", failed, "agent", "stage")
    tokens = split("tokens_", ("in", "out"))
    yield _counter("tokens", "Tokens of finished model calls.", tokens, "agent", "direction")
    text = (
        "Turns by the tier of models that spoke last in them: 1 is the agent's own, then fallbacks."
    )
    yield _counter("turns_by_tier", text, _tiers(reading), "agent", "tier")
    usd = totals("usd", 1e6)
    yield _counter("dollars", "US dollars spent on finished model calls.", usd, "agent")
    turns = HistogramMetricFamily("fleet_turn_seconds", "How long turns took.", labels=["agent"])
    for agent in reading.agents:
        seen, buckets = 0, []
        for bound in TURN_BOUNDS_MS:
            seen += _total(reading, agent, f"turn.{bound}")
            buckets.append((str(bound / 1000), float(seen)))
        seen += _total(reading, agent, "turn.inf")
        buckets.append(("+Inf", float(seen)))
        turns.add_metric([agent], buckets, _total(reading, agent, "turn_ms") / 1000)
    yield turns


def _tiers(reading: Reading) -> dict[tuple[str, ...], float]:
    """Turns by tier: the first tier of each agent, and every other tier ever used."""
    found: dict[tuple[str, ...], float] = {(agent, "1"): 0 for agent in reading.agents}
    for name, number in reading.totals.items():
        agent, _, measure = name.partition("|")
        if agent in reading.agents and measure.startswith("tier."):
            found[agent, measure.removeprefix("tier.")] = number
    return found


def _gauge(name: str, text: str, values: Samples, *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"fleet_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family


def _counter(name: str, text: str, values: Samples, *labels: str) -> CounterMetricFamily:
    family = CounterMetricFamily(f"fleet_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family


def _total(reading: Reading, agent: str, measure: str) -> int:
    return reading.totals.get(f"{agent}|{measure}", 0)


def _age_s(now_ms: float, since_ms: float) -> float:
    return max(0.0, now_ms - since_ms) / 1000 if since_ms else 0.0


def _pairs(flat: Any) -> dict[str, str]:
    # Lua encodes an empty list as an empty JSON object.
    items = list(flat)
    return dict(zip(items[::2], items[1::2], strict=True))


def _integers(flat: Any) -> dict[str, int]:
    return {name: int(value) for name, value in _pairs(flat).items()}
