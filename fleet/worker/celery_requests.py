"""Celery's Request, adapted to the fleet's tasks. It lives in the worker's own process."""

import json
import logging
import os
import re
from contextlib import suppress
from dataclasses import asdict
from signal import SIGKILL
from typing import Any

from celery.worker.request import Request
from celery.worker.state import revoked

from fleet import runtime
from fleet.errors import BrokerUnavailable
from fleet.formats import strict_json
from fleet.formats.redaction import HIDDEN
from fleet.ledger import Ending, Failure, LeaseToken, State
from fleet.system.process_group import kill_child
from fleet.worker.remote_control import REVOKED_ONCE_IN_S, report
from fleet.worker.state import WORKER
from fleet.worker.task_events import shown

logger = logging.getLogger(__name__)

_CANCEL = "a dispatch is ended by `fleet queue cancel`"
#: What a dispatch's task returns or raises, as text.
_SHOWN = re.compile(r"{'dispatch_id': '([^']+)'.*?}")
#: The event of a state, where several attempts end with one message.
_KINDS: dict[str, str] = {
    State.RETRYING: "task-retried",
    State.DEAD: "task-failed",
    State.ANNOUNCING: "task-failed",
}


def _ends(result: object) -> list[dict[str, str]]:
    """The turns that a child of a pool has ended, from the JSON in Celery's quotes."""
    text = str(result or "")[1:-1].replace("\\'", "'")
    try:
        rows: list[dict[str, str]] = json.loads(text)
    except ValueError:
        return []
    return rows


class DispatchRequest(Request):
    """Carries the lease's token to the child, and reports for a child that was killed.

    A wake-up leaves the queue when it is popped (`no_ack`). The ledger knows the work, so there is
    nothing to acknowledge, to requeue or to redeliver.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._killed: tuple[str, dict[str, str]] | None = None  #: why, and what is shown of it
        # The agent's own hold; a message's would cut off whichever dispatch is next.
        self.time_limits = (None, None)
        lease = WORKER.lease
        if lease is not None:
            self.request_dict["lease"] = asdict(lease.token())

    @property
    def kwargsrepr(self) -> str:
        """The agent, for those who follow Celery's events."""
        if WORKER.pool is not None:
            return repr({"pool": WORKER.pool.pool})
        return repr({"agent": WORKER.lease.agent}) if WORKER.lease is not None else "{}"

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - as Celery calls it
        """Send a task event; the end of an attempt as one of the dispatch that ran.

        A wake-up names a dispatch, and the ledger may have chosen another.
        """
        if self._killed is not None and type == "task-failed":
            reason, ended = self._killed
            type = "task-failed" if ended["state"] != State.RETRYING else "task-retried"  # noqa: A001
            fields = {"exception": f"{reason} {ended}", "traceback": ""}
        if WORKER.pool is not None and type in ("task-succeeded", "task-failed"):
            # A failure is a killed child's: its turn is told of by itself.
            for row in _ends(fields.get("result")):
                self._send_end(row)
            return
        found = _SHOWN.search(str(fields.get("result") or fields.get("exception")))
        if found is None or not (self.eventer and self.eventer.enabled and self.task.send_events):
            super().send_event(type, **fields)
            return
        self.eventer.send(type, uuid=found[1], name=self.name, kwargs=found[0], **fields)

    def _send_end(self, row: dict[str, str]) -> None:
        """Send the end of one of the turns that a child of a pool ran."""
        if not (self.eventer and self.eventer.enabled and self.task.send_events):
            return
        kind, text = _KINDS.get(row["state"], "task-succeeded"), repr(row)
        fields = {"result": text} if kind == "task-succeeded" else {"exception": text}
        self.eventer.send(
            kind, uuid=row["dispatch_id"], name=self.name, kwargs=text, traceback="", **fields
        )

    def revoked(self) -> bool:
        """False, and forgets a revocation: the dispatch would be left without any wake-up."""
        if self.id in revoked:
            revoked.discard(self.id)
            report(f"{self.id} is not revoked: {_CANCEL}", once_in_s=REVOKED_ONCE_IN_S)
        return False

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Do nothing: the ledger would count a lost worker, and the turn would run again."""
        report(f"{self.id} is not terminated: {_CANCEL}", once_in_s=REVOKED_ONCE_IN_S)

    def acknowledge(self) -> None:
        """Acknowledge, except where the queue is `no_ack`."""
        self._retire_child()
        if runtime.current().wakes:
            self.acknowledged = True
        else:
            super().acknowledge()

    def reject(self, requeue: bool = False) -> None:
        """Look for work now instead of requeueing: the dispatch is still in the ledger."""
        self._retire_child()
        if runtime.current().wakes:
            self.acknowledged = True
            WORKER.work_wanted.set()
        else:
            super().reject(requeue)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Kill the turn of a worker that stops cold; it is released with the worker's lease.

        By SIGKILL, because a turn ignores SIGTERM (see `tasks.limits`), and with all that its tools
        started.
        """
        if self.worker_pid:
            with suppress(ProcessLookupError):
                os.killpg(int(self.worker_pid), SIGKILL)
        super().cancel(pool, signal=SIGKILL, emit_retry=emit_retry)

    def _retire_child(self) -> None:
        """A message is settled when its child has answered, and before that gets another one.

        So here a child that is spent can be killed, with all that its tools started, and nothing is
        lost with it: the pool forks the next at once.
        """
        if self.worker_pid and WORKER.shared.retires(int(self.worker_pid)):
            logger.warning("the child of %s is replaced: calls of its turn go on", self.id)
            with suppress(ProcessLookupError):
                os.killpg(int(self.worker_pid), SIGKILL)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Record the outcome of a child that is killed at the hard limit, once."""
        if not soft and WORKER.lease is not None:
            self._end_killed(WORKER.lease.token(), Failure.past_hard_limit(timeout))
        super().on_timeout(soft, timeout)

    def _end_killed(self, lease: LeaseToken, failure: Failure) -> None:
        # The pool kills it only after this call, and its session goes on with the commit.
        if self.worker_pid:
            kill_child(int(self.worker_pid))
        turn, state = WORKER.shared.turn, None
        ran = turn.dispatch_id if turn else self.id
        try:
            state = runtime.current().ledger.commit_active(lease, Ending(failure=failure))
        except BrokerUnavailable as error:
            # The next claim finds the dispatch active and counts a lost worker instead.
            logger.warning("the hard limit of %s could not be recorded: %s", ran, error)
        ended = str(state or State.ACTIVE)
        about = shown(ran, lease.agent, turn.session if turn else "", state=ended)
        self._killed = f"{failure.stage}: {failure.reason}", about


class IntakeRequest(Request):
    """Hides the arguments of `fleet.intake`, the one message that holds content.

    It looks for keys that stand twice, too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Celery keeps the last of two equal keys, and the task sees no more than that.
        with suppress(ValueError):
            try:
                strict_json.parse(self.body)
            except strict_json.DuplicateKey as error:
                self.request_dict["ambiguous"] = f"The event is ambiguous: {error}."

    argsrepr = property(lambda _self: HIDDEN)
    kwargsrepr = property(lambda _self: HIDDEN)

    def info(self, safe: bool = False) -> Any:
        """The description that `celery inspect` and Flower show."""
        return {**super().info(safe), "args": HIDDEN, "kwargs": HIDDEN}
