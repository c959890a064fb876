"""A dispatch that only the spool knows yet, as callers see it."""

from typing import Any

from fleet.formats.redaction import HIDDEN
from fleet.intake.spool.spool import ENDING, Spool, read_entry
from fleet.ledger import State
from fleet.ledger.protocol import Ending
from fleet.ledger.views import rfc3339
from fleet.system.clock import Moment

_WAITS = "the broker to be back"


def query(spool: Spool, dispatch_id: str, *, content: bool) -> dict[str, Any] | None:
    """One dispatch in the form of `fleet.ledger.views.get`; None where the spool may not run it.

    A failed one is `queued`: the ledger decides about another try. Raises SpoolFull.
    """
    if not spool.exists:
        return None
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
    if run.begun:
        record["started_at"] = rfc3339(run.since.wall * 1000)
        if run.ended is not None:
            elapsed_s = run.since.age_s() - Moment(*run.ended["at"]).age_s()
            ending = ENDING.validate_json(run.ended["ending"])
            record |= _ended(ending, elapsed_s, content=content)
    return record


def _ended(ending: Ending, elapsed_s: float, *, content: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"elapsed_s": max(0.0, elapsed_s)}
    if ending.failure is not None:
        fields |= {"stage": ending.failure.stage, "error": ending.failure.reason}
        return fields
    answer = ending.answer if content else HIDDEN
    return {**fields, "state": State.COMPLETED, "waiting_for": None, "answer": answer}
