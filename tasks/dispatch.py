"""The heart: claim, turn, commit."""

import logging
import time
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

from celery import Task, current_task, shared_task
from celery.exceptions import Ignore, Reject

from fleet import context, tracing
from fleet.errors import BrokerUnavailable, Fenced
from fleet.holder import HOLDER
from fleet.lease import Hold
from fleet.ledger import Claim, Ending, Failure, Stage, State
from fleet.publish import DISPATCH_TASK
from fleet.runner import TurnFailed
from fleet.speech import Speech
from fleet.turn import Cancelled, Deadline, Turn
from tasks import lingering
from tasks.deliver import ring
from tasks.limits import soft_limit, until_the_worker_says
from tasks.runners import runner_for

logger = logging.getLogger(__name__)

#: An answer is worth waiting for the broker; after this the turn is run again from its journal.
COMMIT_PATIENCE_S = 60.0
#: Between attempts; each costs a millisecond where nobody listens.
COMMIT_PAUSE_S = 0.05


class DispatchTask(Task[Any, Any]):
    """Its Request brings the worker's lease along, and speaks for a child that was killed."""

    Request = "fleet.requests:DispatchRequest"


@shared_task(base=DispatchTask, name=DISPATCH_TASK)
def dispatch(dispatch_id: str) -> None:
    """Run the agent's next dispatch: `dispatch_id` rang, the ledger decides which is next."""
    hold = Hold(**current_task.request.get("hold"))
    try:
        claim = context.ledger().claim(hold.agent, hold.fence, hold.holder)
    except Fenced as error:
        logger.warning("not run: %s", error)
        return
    except BrokerUnavailable as error:
        # Not a failure of the event: an exception would make Celery acknowledge it.
        raise Reject(str(error), requeue=True) from error
    if claim is None:
        logger.info("nothing to do for %s", dispatch_id)
        return
    try:
        with until_the_worker_says(), _traced(claim) as span:
            state = _commit(claim, _run(claim))
            span.note(state=state or "refused")
    finally:
        # What a turn has left behind would be in the way of the next one, perhaps for ever.
        HOLDER.page.spent = lingering.running() > 0
    if state == State.ANNOUNCING:
        ring(dispatch.app, claim.dispatch_id)
    logger.info("dispatch %s attempt %d: %s", claim.dispatch_id, claim.attempt, state)


def _traced(claim: Claim) -> AbstractContextManager[tracing.Span]:
    return tracing.span(
        "fleet.dispatch",
        parent=claim.event.traceparent,
        dispatch_id=claim.dispatch_id,
        agent=claim.agent,
        attempt=claim.attempt,
    )


def _run(claim: Claim) -> Ending:
    """The turn, whatever it does: every way out of it is an ending."""
    settings = context.settings()
    agent = settings.agents[claim.agent]
    sooner_s = claim.place.timeout_s if claim.place else None
    limit_s = sooner_s or settings.timeout_s(claim.agent)
    deadline = time.monotonic() + limit_s
    speech = Speech(context.store(), claim) if agent.stream else None
    speaking = closing(speech) if speech else nullcontext()
    turn = Turn(claim=claim, agent=agent, deadline=deadline, ledger=context.ledger(), speech=speech)
    if claim.cancel:
        return Ending(cancelled=claim.cancel)
    answer, failure, cancelled = "", None, ""
    try:
        with HOLDER.running(claim.dispatch_id), soft_limit(sooner_s), speaking:
            answer = runner_for(agent).run(turn)
    except Deadline:
        failure = Failure(
            stage=Stage.TIMEOUT,
            reason=f"the turn took longer than its limit of {limit_s:g} s",
            retryable=True,
            kind="Deadline",
        )
    except Cancelled as error:
        cancelled = str(error)
    except Fenced as error:
        raise Ignore from error
    except TurnFailed as error:
        failure = error.failure
    except BrokerUnavailable as error:
        raise Reject(str(error), requeue=True) from error
    except BaseException as error:
        # An escaped MemoryError or SystemExit would end the worker (celery/celery#10462).
        logger.exception("the runner of %s raised", claim.agent)
        failure = Failure(
            stage=Stage.TOOL,
            reason=f"the agent's code raised {type(error).__name__}",
            retryable=False,
            kind=type(error).__name__,
        )
    usage = {"tokens_in": turn.usage.tokens_in, "tokens_out": turn.usage.tokens_out}
    facts = {**usage, "usd": f"{turn.usage.usd:.6f}", "steps": turn.steps, **turn.facts}
    return Ending(answer=answer, failure=failure, cancelled=cancelled, facts=facts)


def _commit(claim: Claim, ending: Ending) -> State | None:
    """Write the outcome; None when a newer holder has the agent and this one is refused."""
    patience = time.monotonic() + COMMIT_PATIENCE_S
    while True:
        try:
            return context.ledger().commit(claim, ending)
        except Fenced as error:
            logger.warning("outcome refused: %s", error)
            return None
        except BrokerUnavailable as error:
            if time.monotonic() > patience:
                raise Reject(str(error), requeue=True) from error
            time.sleep(COMMIT_PAUSE_S)
