"""The claim of one outcome for one receiver, and the report of the attempt's result.

A report that a receiver confirmed ends the delivery in the ledger, so it is never sent again. An
attempt that was cut short is repeated under the same id, by which a receiver recognises it.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fleet.store import Store
from fleet.store.calls import DeliverClaimCall, DeliverEndCall

#: A claim lasts so long beyond three windows (connecting, sending, waiting): resolving a name takes
#: time too.
LEASE_MARGIN_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptResult:
    """The result of one attempt.

    `unverified`: all of it was sent, and no answer came in time; or no attempt can succeed.
    `placed`: an agent has it as the dispatch of that id, whose turn will confirm it.
    """

    kind: Literal["ack", "unverified", "failed", "placed"]
    reason: str  #: without content, path or secret
    retry_after_s: float = 0.0
    placed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingDelivery:
    """An outcome on its way to one target."""

    name: str  #: of the delivery; see `_announce.lua`
    target: str
    call: str
    record: Mapping[str, str]  #: of the dispatch
    about: Mapping[str, str]  #: the announcement; see `_announce.lua`
    answer: str  #: empty where the dispatch did not complete
    trail: tuple[str, ...]  #: of a chain's end, the ending of each stage

    @property
    def message_id(self) -> str:
        """The same in each attempt, another one in each generation."""
        return f"{self.record['id']}.{self.record['generation']}.{self.target}"


def claim(
    store: Store, name: str, target: str, window_s: float, keep_ms: int
) -> PendingDelivery | None:
    """Claim an open and due target exclusively; None where it is not. Raises BrokerUnavailable."""
    call = DeliverClaimCall(
        dispatch_id=name,
        target=target,
        call=uuid.uuid4().hex,
        lease_ms=int(1000 * (LEASE_MARGIN_S + 3 * window_s)),
        keep_ended_ms=keep_ms,
    )
    verdict, *rest = store.run(call)
    if verdict != "claimed":
        return None
    record, answer, about, *trail = rest
    known = _table(record)
    return PendingDelivery(
        # With its generation, because a replay may give the dispatch's own name to the next one.
        name=f"{known['id']}.{known['generation']}",
        target=target,
        call=call.call,
        record=known,
        about=_table(about),
        answer=answer,
        trail=tuple(trail),
    )


def report(
    store: Store, pending: PendingDelivery, result: AttemptResult, keep_ms: int
) -> int | None:
    """Report an attempt's result; the milliseconds until the next attempt is due, or None.

    Raises BrokerUnavailable.
    """
    call = DeliverEndCall(
        dispatch_id=pending.name,
        target=pending.target,
        call=pending.call,
        result=result.kind,
        reason=result.reason,
        keep_ended_ms=keep_ms,
        retry_after_ms=int(result.retry_after_s * 1000),
        placed=result.placed,
    )
    verdict, *rest = store.run(call)
    return int(rest[0]) if verdict == "again" else None


def _table(flat: Any) -> dict[str, str]:
    # Of an earlier generation the last words count.
    return dict(zip(flat[::2], flat[1::2], strict=True))
