"""The ledger on Valkey: each verb is one Lua script, and this module gives it types."""

import logging
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

from fleet.config.settings import Settings
from fleet.errors import Fenced, IdempotencyConflict, Refused
from fleet.ledger.answers import read_answer, read_history, read_payload, read_position
from fleet.ledger.arguments import Arguments, dollars, turn_messages
from fleet.ledger.protocol import (
    NOTHING,
    Accepted,
    Answer,
    Claim,
    Cost,
    Ending,
    Failure,
    ImportedEvent,
    LeaseToken,
    Ledger,
)
from fleet.ledger.states import FailureStage, State
from fleet.store import Store, keys
from fleet.store.calls import (
    AcceptCall,
    AcceptPlainCall,
    BackfillCall,
    ClaimCall,
    CommitCall,
    EventArgs,
    StepCall,
)
from fleet.store.connection import reachable
from fleet.store.wakeup import WakeupPublisher
from routing import Event, Plan, Verdict, read_verdict
from routing.chains import HUMAN_MARK

logger = logging.getLogger(__name__)

AnyAcceptCall = AcceptCall | AcceptPlainCall

#: Dispatches of one call. A server that accepts so many serves nobody else for two milliseconds, or
#: for longer where it must end others for each of them.
ACCEPTS_PER_CALL: dict[type[AnyAcceptCall], int] = {AcceptPlainCall: 50, AcceptCall: 10}
#: A dispatch whose worker died this often is dead-lettered: it is more likely cause than victim.
LOSSES_MAX = 3


class ValkeyLedger(Ledger):
    """Implements `Ledger`; see there for what each verb promises."""

    def __init__(
        self, store: Store, settings: Settings, publisher: WakeupPublisher | None = None
    ) -> None:
        """`publisher` where the broker is not the store; otherwise the scripts push wake-ups."""
        self.store = store
        self.publisher = publisher
        self.settings = settings
        self._arguments = Arguments(settings)
        self._keep_ended_ms = int(settings.retention.completed_s * 1000)
        self._keep_dead_ms = int(settings.retention.dead_s * 1000)

    def accept_many(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
        """Accept each in turn."""
        answers = self.store.run_each(self._accept_calls(batch))
        accepted = [
            read_answer(event, answer)
            for (event, _), answer in zip(batch, chain.from_iterable(answers), strict=True)
        ]
        if self.publisher:
            for answer in accepted:
                _notify(self.publisher, answer)
        return accepted

    def _accept_calls(self, batch: Sequence[tuple[Event, Plan]]) -> Iterator[AnyAcceptCall]:
        """The batch cut so that no call has many dispatches, except one event to many agents."""
        part, size = list[EventArgs](), 0
        kind: type[AnyAcceptCall] = AcceptPlainCall
        for event, plan in batch:
            args = self._arguments.event(event, plan)
            needed = AcceptPlainCall if args.is_plain else AcceptCall
            new = len(args.dispatches) or 1
            size += new
            if part and (needed is not kind or size > ACCEPTS_PER_CALL[kind]):
                yield kind(events=part)
                part, size = [], new
            part.append(args)
            kind = needed
        if part:
            yield kind(events=part)

    def claim(self, lease: LeaseToken) -> Claim | None:
        """The agent's next dispatch, or None when nothing is runnable."""
        call = ClaimCall(
            agent=lease.agent,
            fence=lease.fence,
            lease=lease.lease,
            holder=lease.holder,
            losses_max=LOSSES_MAX,
            keep_dead_ms=self._keep_dead_ms,
            keep_ended_ms=self._keep_ended_ms,
            call=uuid.uuid4().hex,
            history_max=self.settings.sessions.history_messages,
            ageing_ms=int(self.settings.ageing_s * 1000),
        )
        answer = self.store.run(call)
        if answer[0] == "fenced":
            raise Fenced(f"The lease of {lease.agent} is no longer held under token {lease.fence}.")
        if answer[0] != "claimed":
            return None
        try:
            return read_claim(lease, *answer[1:])
        except (KeyError, TypeError, ValueError) as error:
            self.set_aside(lease, answer, error)
            return None

    def set_aside(self, lease: LeaseToken, answer: Sequence[Any], error: Exception) -> None:
        """Dead-letter a claim that cannot be read: no fault of the worker, and none can run it."""
        _, dispatch_id, attempt, _, payload, *_, joined = answer[:8]
        kind = type(error).__name__
        reason = "its event, or one that joined it, is not in the store any more"
        if payload and all(joined):
            reason = f"what the store keeps of it cannot be read ({kind})"
        logger.error("dispatch %s is set aside: %s", dispatch_id, reason)
        failure = Failure(stage=FailureStage.QUEUE, reason=reason, retryable=False, kind=kind)
        call = self._end_call(dispatch_id, lease, int(attempt), Ending(failure=failure))
        self.read_end(lease, self.store.run(call))

    def step(
        self,
        claim: Claim,
        key: str,
        entry: str,
        cost: Cost = NOTHING,
        verification: str = "",
        reason: str = "",
    ) -> str:
        """Journal a finished step and count its cost; answers why to cancel, or an empty string."""
        call = StepCall(
            dispatch_id=claim.dispatch_id,
            fence=claim.fence,
            lease=claim.lease,
            attempt=claim.attempt,
            step=key,
            entry=entry,
            tokens_in=cost.tokens_in,
            tokens_out=cost.tokens_out,
            usd=dollars(cost),
            verification=verification,
            reason=reason,
        )
        verdict, cancel = self.store.run(call)
        if verdict == "fenced":
            raise claim.fenced()
        return cancel

    def steps(self, dispatch_id: str) -> dict[str, str]:
        """The journal of a dispatch: step key -> entry."""
        with reachable():
            found: dict[str, str] = self.store.client.hgetall(keys.journal(dispatch_id))  # type: ignore[assignment]
        return found

    def commit(self, claim: Claim, ending: Ending) -> State:
        """End the attempt; answers the state the dispatch is in now."""
        return self.read_end(claim, self.store.run(self.commit_call(claim, ending)))

    def commit_call(self, claim: Claim, ending: Ending) -> CommitCall:
        """The call that ends an attempt."""
        if claim.chain_position and not (ending.failure or ending.cancelled):
            silence = claim.chain_position.on_silence if ending.answer.strip() else Verdict.REJECT
            verdict = read_verdict(ending.answer) or silence
            ending = replace(ending, facts={**ending.facts, "verdict": verdict})
        messages = "", ""
        if ending.answer.strip() and claim.event.session is not None:
            messages = turn_messages(claim.event, claim.agent, claim.text, ending.answer)
        return self._end_call(claim.dispatch_id, claim, claim.attempt, ending, messages)

    def read_end(self, claim: Claim | LeaseToken, answer: list[str]) -> State:
        """The state after an end, as the script answers it; publishes what that has made.

        Raises Fenced.
        """
        if answer[0] != "done":
            name = claim.dispatch_id if isinstance(claim, Claim) else claim.agent
            raise Fenced(f"The attempt of {name} is no longer the current one.")
        self.notify_stage(answer[2:])
        return State(answer[1])

    def commit_active(
        self,
        lease: LeaseToken,
        ending: Ending,
        dispatch_id: str = "",
        attempt: int | Literal[""] = "",
    ) -> State | None:
        """End whatever runs under `lease`; for the parent of a child that no longer can.

        In a pool, where an agent may have several turns, one attempt. None when nothing ran.
        """
        try:
            call = self._end_call(dispatch_id, lease, attempt, ending)
            return self.read_end(lease, self.store.run(call))
        except Fenced:
            return None

    def _end_call(
        self,
        dispatch_id: str,
        right: Claim | LeaseToken,
        attempt: int | Literal[""],
        ending: Ending,
        messages: tuple[str, str] = ("", ""),
    ) -> CommitCall:
        return CommitCall(
            dispatch_id=dispatch_id,
            agent=right.agent,
            fence=right.fence,
            lease=right.lease,
            attempt=attempt,
            ending=self._arguments.ending(right.agent, ending, messages),
        )

    def notify_stage(self, made: Sequence[str]) -> None:
        """Publish wake-ups for the dispatches of a chain's next stage, `id agent` each.

        Beat publishes those that were not delivered.
        """
        for dispatch_id, agent in (words.split() for words in made):
            if self.publisher:
                self.publisher(agent, dispatch_id)

    def import_spooled(self, batch: Sequence[ImportedEvent]) -> int:
        """Accept events that the spool accepted, with their runs; a known event is skipped.

        No event is refused, neither for `max_pending` nor for a busy session. Answers how many of
        the reports came too late: the ledger has another run of that dispatch. Raises ConfigError
        for an event that cannot be accepted any more, before any of the batch is;
        IdempotencyConflict for an id that stands for another event, after the rest of the batch is.
        """
        calls = [
            BackfillCall(
                reports=self._arguments.reports(one.reports),
                event=self._arguments.event(one.event, one.plan, age_s=one.age_s),
            )
            for one in batch
        ]
        late, conflict = 0, None
        for one, (answer, too_late, *made) in zip(
            batch, self.store.run_in_order(BackfillCall, calls), strict=True
        ):
            accepted = read_answer(one.event, answer)
            if isinstance(accepted, Refused):
                raise accepted
            if isinstance(accepted, IdempotencyConflict):
                conflict = accepted
            if self.publisher:
                _notify(self.publisher, accepted)
            self.notify_stage(made)
            late += int(too_late)
        if conflict:
            raise conflict
        return late


def read_claim(
    lease: LeaseToken,
    dispatch_id: str,
    attempt: int,
    turn_fence: str,
    payload: str,
    cancel: str,
    history: list[str],
    joined: list[str],
    *place: str,
) -> Claim:
    """A claim as `claim.lua` answers it. Raises KeyError, TypeError and ValueError."""
    event = read_payload(payload)
    return Claim(
        dispatch_id=dispatch_id,
        agent=lease.agent,
        attempt=int(attempt),
        fence=lease.fence,
        lease=lease.lease,
        turn_fence=int(turn_fence),
        event=event,
        cancel=cancel,
        history=read_history(history, event),
        joined=tuple(map(read_payload, joined)),
        chain_position=read_position(place),
    )


def _notify(publisher: WakeupPublisher, answer: Answer) -> None:
    if isinstance(answer, Accepted) and not answer.duplicate:
        for dispatch_id, agent in answer.dispatches:
            # A person has no queue.
            if not agent.startswith(HUMAN_MARK):
                publisher(agent, dispatch_id)
