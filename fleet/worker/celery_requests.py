"""Celery's Request, as the fleet's tasks need it. It lives in the worker's own process."""

import logging
import os
from contextlib import suppress
from dataclasses import asdict
from signal import SIGKILL
from typing import Any

from celery.worker.request import Request

from fleet import runtime
from fleet.errors import BrokerUnavailable
from fleet.formats.redaction import HIDDEN
from fleet.ledger import Ending, Failure, FailureStage
from fleet.store.address import rings_in_store
from fleet.worker.lease import LeaseToken
from fleet.worker.state import WORKER

logger = logging.getLogger(__name__)


class DispatchRequest(Request):
    """Carries the fencing token to the child, and speaks for a child that was killed.

    A doorbell is taken off the queue when it is popped (`no_ack`): the ledger knows what is to be
    done, so there is nothing to acknowledge, to requeue or to redeliver.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        lease = WORKER.lease
        if lease is not None:
            hold = LeaseToken(lease.agent, lease.fence, lease.holder, lease.epoch)
            self.request_dict["hold"] = asdict(hold)

    def acknowledge(self) -> None:
        """Nothing to tell the broker where the queue is `no_ack`."""
        self._replace_spent()
        if rings_in_store(runtime.current().settings):
            self.acknowledged = True
        else:
            super().acknowledge()

    def reject(self, requeue: bool = False) -> None:
        """The dispatch is still in the ledger: ring again instead of requeueing the message."""
        self._replace_spent()
        if rings_in_store(runtime.current().settings):
            self.acknowledged = True
            WORKER.work_wanted.set()
        else:
            super().reject(requeue)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """A worker that stops cold kills its turn, and hands it back when it gives up its lease.

        By SIGKILL, because a turn does not hear SIGTERM (see `tasks.limits`), and with all that its
        tools started.
        """
        if self.worker_pid:
            with suppress(ProcessLookupError):
                os.killpg(int(self.worker_pid), SIGKILL)
        super().cancel(pool, signal=SIGKILL, emit_retry=emit_retry)

    def _replace_spent(self) -> None:
        """A message is settled when its child has answered, and before that gets another one.

        So here a child that is spent can be killed, with all that its tools started, and nothing is
        lost with it: the pool forks the next at once.
        """
        if WORKER.shared.retire_child and self.worker_pid:
            WORKER.shared.retire_child = False
            logger.warning("the child of %s is replaced: calls of its turn go on", self.id)
            with suppress(ProcessLookupError):
                os.killpg(int(self.worker_pid), SIGKILL)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The hard limit: the child is being killed, so the outcome is written here, once."""
        super().on_timeout(soft, timeout)
        lease = WORKER.lease
        if soft or lease is None:
            return
        failure = Failure(
            stage=FailureStage.TIMEOUT,
            reason=f"the turn ran on past its hard limit of {timeout:g} s and was killed",
            retryable=True,
            kind="TimeLimitExceeded",
        )
        try:
            runtime.current().ledger.commit_active(
                lease.agent, lease.fence, Ending(failure=failure)
            )
        except BrokerUnavailable as error:
            # The next claim finds the dispatch active and counts a lost worker instead.
            logger.warning("the hard limit of %s could not be recorded: %s", self.id, error)


class IntakeRequest(Request):
    """Hides the arguments of `fleet.intake`, the one message that holds content."""

    argsrepr = property(lambda _self: HIDDEN)
    kwargsrepr = property(lambda _self: HIDDEN)

    def info(self, safe: bool = False) -> Any:
        """What `celery inspect` and Flower are told."""
        return {**super().info(safe), "args": HIDDEN, "kwargs": HIDDEN}
