"""One turn, whichever ledger it comes from: run it, and write down how it ended."""

import logging
import time
from contextlib import AbstractContextManager, closing, nullcontext

from fleet import runtime, tracing
from fleet.errors import BrokerUnavailable, Fenced
from fleet.ledger import Claim, Ending, Failure, FailureStage, Runs, State
from fleet.store.retry import retry_while_away
from fleet.system.process_tags import Owner, take_over
from fleet.turn.live_text import LiveText
from fleet.turn.runner import TurnFailed
from fleet.turn.turn import Cancelled, Deadline, Turn
from fleet.worker.state import WORKER
from tasks.limits import noted_limit, soft_limit
from tasks.runners import runner_for

logger = logging.getLogger(__name__)

#: An answer is worth waiting for the broker; after this the turn is run again from its journal.
COMMIT_TIMEOUT_S = 60.0
#: Between attempts; each costs a millisecond where nobody listens.
COMMIT_RETRY_DELAY_S = 0.05

#: By what right this process has made sure that it is alone.
_alone: tuple[str, str, int] | None = None


def alone(agent: str, epoch: str = "", fence: int = 0) -> bool:
    """Make sure that nothing of an earlier turn of the agent runs on here; before the first claim.

    False when that is not certain: then nothing may be claimed. Costs nothing once it is.
    """
    global _alone
    right = (agent, epoch, fence)
    if _alone == right:
        return True
    with noted_limit() as passed:
        left = take_over(Owner.here(runtime.settings().data_dir, agent, epoch, fence))
    if left:
        logger.error(
            "no turn of %s begins: processes %s of an earlier one cannot be killed; end them",
            agent,
            ", ".join(map(str, left)),
        )
        return False
    _alone = right
    return not passed()


def traced(claim: Claim) -> AbstractContextManager[tracing.Span]:
    """The span of one attempt."""
    return tracing.span(
        "fleet.dispatch",
        parent=claim.event.traceparent,
        dispatch_id=claim.dispatch_id,
        agent=claim.agent,
        attempt=claim.attempt,
    )


def run(claim: Claim, ledger: Runs, *, alarm: bool = False) -> Ending:
    """The turn, whatever it does: every way out of it is an ending.

    `alarm` where no worker keeps the soft limit. Raises Fenced when a newer holder has the agent,
    and BrokerUnavailable when a step cannot be journalled.
    """
    settings = runtime.settings()
    agent = settings.agents[claim.agent]
    sooner_s = claim.chain_position.timeout_s if claim.chain_position else None
    limit_s = sooner_s or settings.timeout_s(claim.agent)
    deadline = time.monotonic() + limit_s
    speech = _speech(claim) if agent.stream else None
    speaking = closing(speech) if speech else nullcontext()
    turn = Turn(claim=claim, agent=agent, deadline=deadline, ledger=ledger, live_text=speech)
    if claim.cancel:
        return Ending(cancelled=claim.cancel)
    answer, failure, cancelled = "", None, ""
    try:
        sooner = limit_s if alarm else sooner_s
        with WORKER.running(claim.dispatch_id), soft_limit(sooner), speaking:
            answer = runner_for(agent).run(turn)
    except Deadline:
        failure = Failure(
            stage=FailureStage.TIMEOUT,
            reason=f"the turn took longer than its limit of {limit_s:g} s",
            retryable=True,
            kind="Deadline",
        )
    except Cancelled as error:
        cancelled = str(error)
    except (Fenced, BrokerUnavailable):
        raise
    except TurnFailed as error:
        failure = error.failure
    except BaseException as error:
        # An escaped MemoryError or SystemExit would end the worker (celery/celery#10462).
        logger.exception("the runner of %s raised", claim.agent)
        failure = Failure(
            stage=FailureStage.TOOL,
            reason=f"the agent's code raised {type(error).__name__}",
            retryable=False,
            kind=type(error).__name__,
        )
    usage = {"tokens_in": turn.usage.tokens_in, "tokens_out": turn.usage.tokens_out}
    facts = {**usage, "usd": f"{turn.usage.usd:.6f}", "steps": turn.steps, **turn.facts}
    return Ending(answer=answer, failure=failure, cancelled=cancelled, facts=facts)


def _speech(claim: Claim) -> LiveText | None:
    """Who listens is told through the store; without one the turn is silent, and goes on."""
    try:
        return LiveText(runtime.store(), claim)
    except BrokerUnavailable as error:
        logger.warning("nobody hears the turn of %s: %s", claim.dispatch_id, error)
        return None


def commit(claim: Claim, ledger: Runs, ending: Ending) -> State | None:
    """Write the outcome; None when a newer holder has the agent and this one is refused.

    Raises BrokerUnavailable when it could not be written for a minute.
    """
    try:
        return retry_while_away(
            lambda: ledger.commit(claim, ending), COMMIT_TIMEOUT_S, COMMIT_RETRY_DELAY_S
        )
    except Fenced as error:
        logger.warning("outcome refused: %s", error)
        return None
