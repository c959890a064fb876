"""One target of an outcome, taken to be sent, and the report of how that went.

What a receiver has confirmed is in the ledger in the same step, so it is never sent again; a try
that was cut short is repeated under the same id, by which a receiver knows it.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fleet.store import Store

#: A sender has a target for so long after three windows (connecting, sending, waiting): a look-up
#: of a name takes its time too.
LEASE_MARGIN_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptResult:
    """How a try ended.

    `unverified`: all of it was sent, and no answer came in time; or it can never be taken.
    `placed`: an agent has it as the dispatch of that id, which confirms it by its turn.
    """

    kind: Literal["ack", "unverified", "failed", "placed"]
    reason: str  #: without content, path or secret
    retry_after_s: float = 0.0
    placed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingDelivery:
    """An outcome on its way to one target."""

    target: str
    call: str
    record: Mapping[str, str]  #: of the dispatch
    about: Mapping[str, str]  #: what is told; see `_announce.lua`
    answer: str  #: empty where it did not complete
    trail: tuple[str, ...]  #: of a chain's end, what each stage ended with

    @property
    def message_id(self) -> str:
        """The same at each try, another one in each generation."""
        return f"{self.record['id']}.{self.record['generation']}.{self.target}"


def claim(
    store: Store, dispatch_id: str, target: str, window_s: float, keep_ms: int
) -> PendingDelivery | None:
    """Take a target that is open and due, alone; None where it is not. Raises BrokerUnavailable."""
    call = uuid.uuid4().hex
    lease_ms = int(1000 * (LEASE_MARGIN_S + 3 * window_s))
    verdict, *rest = store.run("deliver_claim", dispatch_id, target, call, lease_ms, keep_ms)
    if verdict != "claimed":
        return None
    record, answer, about, *trail = rest
    return PendingDelivery(
        target=target,
        call=call,
        record=_table(record),
        about=_table(about),
        answer=answer,
        trail=tuple(trail),
    )


def report(store: Store, told: PendingDelivery, sample: AttemptResult, keep_ms: int) -> int | None:
    """Say how a try ended; in how many ms the next one is due, or None.

    Raises BrokerUnavailable.
    """
    verdict, *rest = store.run(
        "deliver_end",
        told.record["id"],
        told.target,
        told.call,
        sample.kind,
        sample.reason,
        keep_ms,
        int(sample.retry_after_s * 1000),
        sample.placed,
    )
    return int(rest[0]) if verdict == "again" else None


def _table(flat: Any) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
