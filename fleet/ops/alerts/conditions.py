"""The conditions of a fleet that need an operator. Pure: equal readings give equal conditions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from fleet.ledger import removed
from fleet.ledger.bus import BusEvent
from fleet.ledger.refusals import Refusals
from fleet.ledger.starting import BEAT, START_S
from fleet.ops.health import BEAT_LATE_S, beat_is_late
from fleet.turn.budget import WARN_AT, BudgetState

#: A worker that is replaced, or a host that is deployed, is back before this.
OFFLINE_AFTER_S = 30.0
#: Longer than any worker takes to come back or to pop a wake-up message.
STUCK_AFTER_S = 30.0
#: A process that ended twice in a row may stay the third time.
CRASH_LOOP_S = 5.0
#: A series of refusals needs an operator when it has lasted this long.
REFUSED_FOR_S = 20.0

#: What scripts put on the bus of these, without an alerter: no news to forward.
_ON_BUS_ALREADY = {
    "beat_dead": ["open"],
    "stuck_queue": ["open"],
    # Its end is there as `delivery_back`.
    "delivery_down": ["open", "closed"],
    "delivery_back": [],
}
#: Types of bus entries that are forwarded as news: they neither open nor close a condition.
NEWS = ("alert",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition that needs an operator while it lasts. Holds no content and no secret."""

    name: str  #: its kind, as on the bus
    reason: str
    remedy: str = ""
    agent: str = ""
    subject: str = ""  #: tells conditions of one kind apart
    for_s: float = 0.0  #: reported when it has lasted this long
    count: int = 0  #: reported again when it has grown
    on_bus: bool = False  #: somebody else has put its beginning on the bus

    @property
    def key(self) -> str:
        """The identity of the condition over several readings."""
        return f"{self.name}:{self.agent}{':' if self.subject else ''}{self.subject}"

    @property
    def message(self) -> str:
        """The reason and the remedy."""
        return f"{self.reason}; {self.remedy}" if self.remedy else self.reason

    def to_wire(self) -> dict[str, Any]:
        """The form for `scripts/alerts.lua`."""
        return {
            "key": self.key,
            "name": self.name,
            "agent": self.agent,
            "reason": self.message,
            "for_ms": int(self.for_s * 1000),
            "count": self.count,
            "quiet": ["open"] if self.on_bus else _ON_BUS_ALREADY.get(self.name, []),
        }


def current(
    counts: Mapping[str, Mapping[str, Any]],
    agents: Mapping[str, Mapping[str, Any]],
    beat_s: float | None,
    dead_letter_reasons: Mapping[str, str],
    *,
    lost: str = "",
    memory_full: bool = False,
    budgets: Mapping[str, BudgetState] = MappingProxyType({}),
    providers: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    removed_agents: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
    refusals: Refusals | None = None,
    failing: Sequence[Mapping[str, Any]] = (),
    down: Mapping[str, str] = MappingProxyType({}),
    starting: frozenset[str] = frozenset(),
    wakeup_fault: str = "",
) -> list[Condition]:
    """The present conditions.

    `counts` and `agents` come from `fleet.ledger.views`. `beat_s` is the time since beat's last
    tick, None before the first. `dead_letter_reasons` holds the reason of each agent's newest dead
    letter. `lost` is what a store that went back misses. `memory_full` is true when its memory is
    nearly full. `budgets` are today's, `providers` the open breakers of `fleet.turn.providers`.
    `removed_agents` comes from `fleet.ledger.removed`, `refusals` from Celery's way in, `failing`
    from `fleet.ledger.processes`. `down` are receivers that take nothing, each with the reason.
    `starting` are agents that are being started. `wakeup_fault` says why the broker, where it is
    not the store, takes no wake-ups.
    """
    found = [*_of_budgets(budgets), *_of_store(lost, memory_full)]
    found += _no_wakeups(wakeup_fault)
    found += _of_beat(beat_s, starting=BEAT in starting)
    found += _refused(refusals)
    found += [_crash_loop(row) for row in failing]
    found += [Condition(name="delivery_down", subject=n, reason=why) for n, why in down.items()]
    found += _removed(removed_agents)
    found += [_provider_open(name, breaker) for name, breaker in providers.items()]
    for name, agent in agents.items():
        if dead := counts[name]["states"].get("dead", 0):
            found.append(_dead_letters(name, dead, dead_letter_reasons.get(name, "")))
        if not agent["paused"] and not agent["pool"]:
            found += _of_worker(name, agent, counts[name], starting=name in starting)
    return [*found, *_of_pools(agents, counts, starting)]


def _of_budgets(budgets: Mapping[str, BudgetState]) -> Iterator[Condition]:
    for name, budget in budgets.items():
        if budget.part >= WARN_AT:
            yield Condition(
                name="budget",
                agent=name,
                reason=f"{budget.part:.0%} of its budget is used up: {budget.of}",
                count=100 if budget.spent else 80,
            )


def _no_wakeups(fault: str) -> Iterator[Condition]:
    if fault:
        yield Condition(
            name="wakeups",
            reason=f"{fault.rstrip('.')}: events are accepted and wait",
            remedy="start it, or correct fleet.broker_url",
            for_s=OFFLINE_AFTER_S,
        )


def _crash_loop(row: Mapping[str, Any]) -> Condition:
    return Condition(
        name="crash_loop",
        subject=f"{row['host']}/{row['process']}",
        reason=f"{row['process']} of {row['host']} keeps ending: it {row['reason']}",
        remedy=f"see log/{row['process']}.log in its data folder",
        for_s=CRASH_LOOP_S,
        on_bus=True,
    )


def _of_beat(beat_s: float | None, *, starting: bool) -> Iterator[Condition]:
    if beat_is_late(beat_s):
        since = "beat has never run" if beat_s is None else f"no beat for {beat_s:.0f} s"
        yield Condition(
            name="beat_dead",
            reason=f"{since}: retries, deadlines and repairs wait",
            remedy="start `fleet up`, or `celery -A fleet beat`",
            for_s=START_S if starting else BEAT_LATE_S,
        )


def _refused(refusals: Refusals | None) -> Iterator[Condition]:
    if refusals is not None and refusals.lasted_s >= REFUSED_FOR_S:
        yield Condition(
            name="intake_refused",
            # Without their sentences, which may repeat a sender's text.
            reason=f"what Celery producers send is refused, {refusals.count} times in a row",
            remedy="see `fleet events` and the log of the intake worker, and correct the producer",
        )


def _removed(agents: Mapping[str, Mapping[str, int]]) -> Iterator[Condition]:
    for name, work in agents.items():
        yield Condition(
            name="agent_removed",
            agent=name,
            reason=removed.sentence(name, work),
            remedy=removed.remedy(name),
            for_s=OFFLINE_AFTER_S,
            count=sum(work.values()),
        )


def _of_store(lost: str, memory_full: bool) -> Iterator[Condition]:
    if lost:
        yield Condition(
            name="store_lost",
            reason=f"the store has lost what was accepted ({lost}): the fleet stands still",
            remedy="look at it, then run `fleet recover`",
        )
    if memory_full:
        yield Condition(
            name="memory",
            reason="the store's memory is nearly full: no event is accepted",
            remedy="raise its maxmemory",
        )


def _of_worker(
    name: str, agent: Mapping[str, Any], row: Mapping[str, Any], *, starting: bool
) -> Iterator[Condition]:
    if not agent["online"]:
        yield Condition(
            name="agent_offline",
            agent=name,
            reason="no worker serves it",
            remedy="start `fleet host`",
            for_s=START_S if starting else OFFLINE_AFTER_S,
        )
    # What waited before the worker came is not its fault.
    elif (
        not agent["active"]
        and not agent["hold_s"]
        and (min(row["oldest_s"], agent["held_s"]) > STUCK_AFTER_S)
    ):
        yield Condition(
            name="stuck_queue",
            agent=name,
            reason="its worker holds the lease but takes no work",
            remedy="restart it",
            for_s=10.0,
        )


def _of_pools(
    agents: Mapping[str, Mapping[str, Any]],
    counts: Mapping[str, Mapping[str, Any]],
    starting: frozenset[str],
) -> Iterator[Condition]:
    """Conditions of each pool as one: its workers serve all of its agents."""
    pools: dict[str, list[str]] = {}
    for name, agent in agents.items():
        if agent["pool"] and not agent["paused"]:
            pools.setdefault(agent["pool"], []).append(name)
    for pool, names in pools.items():
        # It works while it runs any turn, however long an agent waits for its own.
        works = any(agents[name]["active"] for name in names)
        waiting = [name for name in names if not agents[name]["hold_s"]]
        first = max(waiting or names, key=lambda name: counts[name]["oldest_s"])
        row = {**agents[first], "active": agents[first]["active"] or works}
        new = all(name in starting for name in names)
        for condition in _of_worker(first, row, counts[first], starting=new):
            yield replace(condition, agent=f"pool.{pool}")


def new_events(entries: Iterable[BusEvent]) -> list[dict[str, Any]]:
    """The entries to forward as they are, except those of an alerter."""
    return [
        {
            "name": entry.fields.get("name", entry.type),
            "agent": entry.fields.get("agent", ""),
            "reason": entry.fields.get("reason", ""),
            # Each is reported, however many there are: somebody waits for a person.
            "dispatch_id": entry.fields.get("dispatch_id", ""),
            "entry": entry.id,
            "at_ms": int(entry.id.partition("-")[0]),
        }
        for entry in entries
        if entry.type in NEWS
        and "state" not in entry.fields
        and entry.fields.get("name") not in _ON_BUS_ALREADY
    ]


def _dead_letters(agent: str, count: int, reason: str) -> Condition:
    letters = "1 dead letter" if count == 1 else f"{count} dead letters"
    last = f", the last one for {reason}" if reason else ""
    return Condition(
        name="dead_letters",
        agent=agent,
        reason=f"{letters}{last}",
        remedy="see `fleet dlq list`",
        count=count,
    )


def _provider_open(name: str, breaker: Mapping[str, Any]) -> Condition:
    stopped = next(iter(breaker.get("agents", ())), "NAME")
    reason = f" after {breaker['reason']}" if breaker.get("reason") else " after its failures"
    return Condition(
        name="provider_open",
        subject=name,
        reason=f"{name} is not called any more{reason}",
        remedy=f"`fleet agents resume {stopped}` tries it at once",
    )
