"""Dead letters: why the newest died, and the replay of many, in bounded steps."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from fleet.config.settings import Settings
from fleet.ledger.operations import NotPossible, Unknown, replay
from fleet.ledger.valkey import ValkeyLedger
from fleet.store import Store, keys
from fleet.store.connection import reachable

#: The most dead letters that one request replays.
BATCH_MAX = 1000
BATCH_DEFAULT = 100
#: More dead letters than can be kept.
NO_LIMIT = 2**31
#: Dead letters that are read in one round trip.
_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The dead letters that are meant."""

    agent: str | None = None
    since_ms: float = 0.0  #: the earliest end
    reason: str = ""  #: a part of the stage and the reason, as `dlq list` shows them, in any case
    reads: Callable[[str], bool] = field(default=lambda _: True)  #: the agents that a caller sees

    def takes(self, agent: str, reason: str) -> bool:
        """True for a dead letter of this agent and reason."""
        if self.agent not in (None, agent) or not self.reads(agent):
            return False
        return self.reason.casefold() in reason.casefold()


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a step: each dead letter is in one of the first two."""

    queued: list[str]
    refused: list[tuple[str, str]]  #: with the sentence
    more: bool  #: True when others of the filter may be left

    def to_wire(self) -> dict[str, Any]:
        """The result as HTTP and `--json` have it."""
        return {
            "replayed": self.queued,
            "refused": [{"dispatch_id": one, "error": error} for one, error in self.refused],
            "more": self.more,
        }


def replay_some(ledger: ValkeyLedger, settings: Settings, chosen: Filter, limit: int) -> Replayed:
    """Replay the `limit` dead letters of a filter that ended first, in their order of acceptance.

    One that cannot be replayed does not stop the others. Raises BrokerUnavailable.
    """
    ids = list(islice(_find(ledger.store, chosen), limit + 1))
    more = len(ids) > limit
    queued, refused = [], []
    for one in _by_acceptance(ledger.store, ids[:limit]):
        try:
            replay(ledger, settings, one)
            queued.append(one)
        except (Unknown, NotPossible) as error:
            refused.append((one, str(error)))
    return Replayed(queued, refused, more)


def newest_reasons(store: Store, agents: Collection[str]) -> dict[str, str]:
    """The stage and the reason of each agent's newest dead letter, among the last that came.

    Raises BrokerUnavailable.
    """
    if not agents:
        return {}
    found: dict[str, str] = {}
    with reachable():
        ids: Any = store.client.zrevrange(keys.DEAD, 0, _PAGE - 1)
    for agent, reason in _told(store, ids):
        if agent in agents:
            found.setdefault(agent, reason)
    return found


def _find(store: Store, chosen: Filter) -> Iterator[str]:
    """The ids of a filter, the oldest end first; read page by page, as far as they are taken."""
    place = 0
    while True:
        with reachable():
            page: Any = store.client.zrangebyscore(
                keys.DEAD, chosen.since_ms, "+inf", start=place, num=_PAGE
            )
        for one, (agent, reason) in zip(page, _told(store, page), strict=True):
            if agent and chosen.takes(agent, reason):
                yield one
        if len(page) < _PAGE:
            return
        place += _PAGE


def _told(store: Store, ids: Sequence[str]) -> list[tuple[str, str]]:
    """The agent of each dead letter, and its stage and reason; empty where it is gone."""
    if not ids:
        return []
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        for one in ids:
            pipe.hmget(keys.dispatch(one), "agent", "stage", "error")
        rows = pipe.execute()
    return [(agent or "", f"{stage or ''}: {error or ''}") for agent, stage, error in rows]


def _by_acceptance(store: Store, ids: Sequence[str]) -> list[str]:
    if not ids:
        return []
    with reachable():
        places: Any = store.client.zmscore(keys.INDEX, list(ids))
    return [one for _, one in sorted(zip((place or 0 for place in places), ids, strict=True))]
