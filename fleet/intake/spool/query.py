"""A dispatch that only the spool knows yet, as callers see it."""

from typing import Any

from fleet.formats.redaction import HIDDEN
from fleet.intake.spool.spool import Spool, read_entry, report
from fleet.ledger import State
from fleet.ledger.failures import shown_failure
from fleet.ledger.views import rfc3339

_WAITS = "the broker to be back"


def query(spool: Spool, dispatch_id: str, *, content: bool) -> dict[str, Any] | None:
    """One dispatch in the form of `fleet.ledger.views.get`; None where the spool may not run it.

    A failed one is `queued`: the ledger decides about another try. Raises SpoolFull.
    """
    with spool.view() as state:
        found = [one for one in state.entries.values() if dispatch_id in one.dispatches]
        if not found:
            return None
        entry, run = found[0], state.run(found[0], dispatch_id)
        event, _ = read_entry(entry)
    record: dict[str, Any] = {
        "dispatch_id": dispatch_id,
        "agent": run.agent,
        "event_id": event.id,
        "source": event.source,
        "priority": event.priority,
        "state": State.ACTIVE if run.is_active else State.QUEUED,
        "attempt": run.attempt,
        "generation": 1,
        "accepted_at": rfc3339(entry.moment.wall * 1000),
        "waiting_for": None if run.is_active else _WAITS,
        "event": event.to_wire() if content else HIDDEN,
    }
    if event.sent_by:
        record["sent_by"] = event.sent_by
    if event.resent_from:
        record["resent_from"] = event.resent_from
    if run.begun:
        record["started_at"] = rfc3339(run.since.wall * 1000)
        told = report(run)
        if told.ending is not None:
            record["elapsed_s"] = told.elapsed_s
            if failure := told.ending.failure:
                shown = shown_failure(failure, run.attempt, content=content)
                record |= {"stage": failure.stage, "error": failure.reason, "failures": [shown]}
            else:
                answer = told.ending.answer if content else HIDDEN
                record |= {"state": State.COMPLETED, "waiting_for": None, "answer": answer}
    return record
