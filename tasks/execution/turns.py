"""One attempt, from its claim to its recorded end, whichever ledger it comes from.

claim -> prepare -> Turn -> run -> Ending -> commit -> State
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from typing import Any

from fleet import runtime, tracing
from fleet.errors import BrokerUnavailable, ConfigError, Fenced
from fleet.ledger import Claim, Ending, Failure, FailureStage, Runs, State
from fleet.locks.errors import LockBusy, LockLost
from fleet.store.connection import retry_while_away
from fleet.system.process_tags import Owner, drop_owner, take_over
from fleet.turn.live_text import LiveText
from fleet.turn.turn import PROGRAMMING_ERRORS, Cancelled, Deadline, Turn, TurnFailed
from fleet.worker.child_processes import end_forks
from fleet.worker.state import WORKER, RunningTurn, running_turn
from tasks.execution.faults import explained, place_of, with_cause
from tasks.limits import noted_limit, sigterm_ignored, soft_limit
from tasks.runners import runner_for

logger = logging.getLogger(__name__)

#: A finished turn waits this long for the broker; then it runs again from its journal.
COMMIT_TIMEOUT_S = 60.0
#: Between attempts; each costs a millisecond where no server listens.
COMMIT_RETRY_DELAY_S = 0.05

#: What no further attempt mends.
DEFECTS = (*PROGRAMMING_ERRORS, ConfigError)

MODEL_CHARS_MAX = 256
#: No agent has as many fallbacks.
TIER_MAX = 1000
#: A fact of a turn that its record may have -> the values that it may have.
FACTS: Mapping[str, Callable[[Any], bool]] = {
    "model": lambda value: (
        isinstance(value, str) and value.isprintable() and len(value) <= MODEL_CHARS_MAX
    ),
    "tier": lambda value: type(value) is int and 0 <= value <= TIER_MAX,
    "injected": lambda value: value in ("echo", "timeout_fallback"),
    "cut": lambda value: value in ("length", "unknown"),
}

#: The lease under which this process has made sure that no earlier turn still runs.
_alone: tuple[str, str, int] | None = None


def ensure_alone(agent: str, epoch: str = "", fence: int = 0) -> bool:
    """Kill all processes of the agent's earlier turns on this machine, before the first claim.

    False when one may still run: then nothing may be claimed. A success is remembered.
    """
    global _alone
    right = (agent, epoch, fence)
    if _alone == right:
        return True
    with noted_limit() as passed:
        left = take_over(Owner.here(runtime.current().settings.data_dir, agent, epoch, fence))
    if left:
        logger.error(
            "%s starts no turn: processes %s of an earlier one cannot be killed; end them",
            agent,
            ", ".join(map(str, left)),
        )
        return False
    _alone = right
    return not passed()


def execute(
    claim: Claim, ledger: Runs, *, alarm: bool = False
) -> tuple[State | None, Failure | None]:
    """Run a claimed attempt and record its end.

    Returns the dispatch's state, None when refused, and why the attempt failed, if it did.

    `alarm`: keep the soft limit here, because no worker does. Raises Fenced when a newer holder has
    the agent, and BrokerUnavailable when a step or the end cannot be recorded for a minute.
    """
    with sigterm_ignored(), WORKER.running(_running(claim)), _span(claim) as span:
        turn = prepare(claim, ledger)
        ending = run(turn, alarm=alarm)
        if WORKER.pool is not None:
            # Once it is recorded, the agent's next turn may look for what this one has left.
            drop_owner()
        state = commit(turn, ending)
        span.set(state=state or "refused")
    if (failure := ending.failure) is not None and not failure.defer:
        logger.warning(
            "attempt %d of %s failed, and it is %s: %s: %s",
            claim.attempt,
            claim.dispatch_id,
            state or "refused",
            failure.stage,
            failure.reason,
        )
    return state, ending.failure


def _running(claim: Claim) -> RunningTurn:
    """The turn as its worker knows it. In a pool that keeps the hard limit, elsewhere Celery."""
    limit_s = runtime.current().settings.hard_limit_s(claim.agent) if WORKER.pool else 0.0
    return running_turn(
        dispatch_id=claim.dispatch_id,
        agent=claim.agent,
        session=claim.event.session or "",
        attempt=claim.attempt,
        right=(claim.fence, claim.lease),
        limit_s=limit_s,
    )


def prepare(claim: Claim, ledger: Runs) -> Turn:
    """The turn of a claim; its time limit runs from now."""
    agent = runtime.current().settings.agents[claim.agent]
    return Turn(
        claim=claim,
        agent=agent,
        deadline=time.monotonic() + _limit_s(claim),
        ledger=ledger,
        live_text=_live_text(claim) if agent.stream else None,
    )


def run(turn: Turn, *, alarm: bool = False) -> Ending:
    """Run the agent and return its ending. Raises only Fenced and BrokerUnavailable."""
    claim = turn.claim
    if claim.cancel:
        return Ending(cancelled=claim.cancel)
    stage_s = claim.chain_position.timeout_s if claim.chain_position else None
    limit = soft_limit(_limit_s(claim) if alarm else stage_s)
    live_text = closing(turn.live_text) if turn.live_text else nullcontext()
    try:
        with limit, live_text, end_forks():
            ending = Ending(answer=runner_for(turn.agent.runner).run(turn))
        _check_facts(turn.facts)
        if changed := turn.journal.changed:
            logger.warning(
                "steps of %s have changed since an earlier attempt, and ran anew: %s",
                claim.dispatch_id,
                ", ".join(changed),
            )
    except (Fenced, BrokerUnavailable):
        raise
    except BaseException as error:  # noqa: BLE001 - a MemoryError or SystemExit would end the worker
        ending = _ending_by(error, turn)
    return replace(ending, facts=_facts(turn))


def commit(turn: Turn, ending: Ending) -> State | None:
    """Record the end; None when a newer holder has the agent and this one is refused.

    Raises BrokerUnavailable when it could not be recorded for a minute.
    """
    try:
        return retry_while_away(
            lambda: turn.ledger.commit(turn.claim, ending), COMMIT_TIMEOUT_S, COMMIT_RETRY_DELAY_S
        )
    except Fenced as error:
        logger.warning("outcome refused: %s", error)
        return None


def _span(claim: Claim) -> AbstractContextManager[tracing.Span]:
    return tracing.span(
        "fleet.dispatch",
        parent=claim.event.traceparent,
        dispatch_id=claim.dispatch_id,
        agent=claim.agent,
        attempt=claim.attempt,
    )


def _limit_s(claim: Claim) -> float:
    """The soft limit: the chain stage's own, or the agent's."""
    stage_s = claim.chain_position.timeout_s if claim.chain_position else None
    return stage_s or runtime.current().settings.timeout_s(claim.agent)


def _live_text(claim: Claim) -> LiveText | None:
    """Streaming needs the store. Without it the turn runs unstreamed."""
    try:
        return LiveText(runtime.current().store, claim)
    except BrokerUnavailable as error:
        logger.warning("the turn of %s is not streamed: %s", claim.dispatch_id, error)
        return None


def _ending_by(error: BaseException, turn: Turn) -> Ending:
    """The ending of a turn that raised; called while the error is handled."""
    match error:
        case Cancelled():
            return Ending(cancelled=str(error))
        case TurnFailed():
            return Ending(failure=with_cause(error.failure, error))
        case Deadline():
            failure = _too_late(error, turn, place_of(error))
        case LockBusy() | LockLost():
            failure = _without_lock(error)
        case _:
            # An escaped MemoryError or SystemExit would end the worker (celery/celery#10462).
            logger.exception("the runner of %s raised", turn.claim.agent)
            failure = _raised(error, place_of(error))
    return Ending(failure=explained(failure, error))


def _too_late(error: Deadline, turn: Turn, place: str) -> Failure:
    limit = f"the turn took longer than its limit of {_limit_s(turn.claim):g} s"
    return Failure(
        stage=FailureStage.TIMEOUT,
        reason=f"{limit}, at {place}" if place else limit,
        retryable=True,
        kind="Deadline",
        place=place,
        message=error.said,
    )


def _raised(error: BaseException, place: str) -> Failure:
    kind = type(error).__name__
    where = f" at {place}" if place else ""
    return Failure(
        stage=FailureStage.TOOL,
        reason=f"the agent's code raised {kind}{where}",
        retryable=isinstance(error, Exception) and not isinstance(error, DEFECTS),
        kind=kind,
        place=place,
    )


def _without_lock(error: LockBusy | LockLost) -> Failure:
    """The failure of a turn whose code lets a lock's error pass."""
    return Failure(
        stage=FailureStage.LOCK,
        reason="the agent's code did not get a lock in time"
        if isinstance(error, LockBusy)
        else "the agent's code lost a lock",
        retryable=True,
        retry_after_s=error.retry_after_s if isinstance(error, LockBusy) else None,
        kind=type(error).__name__,
    )


def _facts(turn: Turn) -> dict[str, str | int | float]:
    usage = turn.usage
    return {
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
        "usd": f"{usage.usd:.6f}",
        "steps": turn.steps,
        **_known(turn.facts),
    }


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: facts[name] for name, fits in FACTS.items() if name in facts and fits(facts[name])
    }


def _check_facts(facts: Mapping[str, Any]) -> None:
    """Raises TurnFailed for a fact that would overwrite or break the record."""
    wrong = [str(name) for name in facts if name not in _known(facts)]
    if wrong:
        reason = (
            f"turn.facts: {wrong[0][:60]!a} is not a fact of a record, or has a wrong value; "
            f"there are {', '.join(FACTS)}"
        )
        raise TurnFailed(
            Failure(stage=FailureStage.TOOL, reason=reason, retryable=False, kind="WrongFact")
        )
