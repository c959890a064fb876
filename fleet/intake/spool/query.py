"""A dispatch that only the spool knows yet, as callers see it."""

from typing import Any

from pydantic import TypeAdapter

from fleet.formats.redaction import HIDDEN
from fleet.intake.spool.file import SpoolFile
from fleet.ledger import State
from fleet.ledger.answers import read_payload
from fleet.ledger.protocol import Ending
from fleet.ledger.views import rfc3339

_ENDING = TypeAdapter(Ending)
_WAITS = "the broker to be back"


def query(file: SpoolFile, dispatch_id: str, *, content: bool) -> dict[str, Any] | None:
    """One dispatch in the form of `fleet.ledger.views.get`; None where the spool may not run it.

    A failed one is `queued`: the ledger decides about another try. Raises SpoolFull.
    """
    if not file.exists:
        return None
    with file.reading() as db:
        row = db.execute(
            "SELECT run.agent, run.state, run.attempt, run.priority, run.started, run.ended, "
            "run.ending, kept.at, kept.event FROM run JOIN kept USING (seq) WHERE dispatch = ?",
            (dispatch_id,),
        ).fetchone()
    if row is None:
        return None
    agent, state, attempt, priority, started, ended, text, at, payload = row
    event = read_payload(payload)
    record: dict[str, Any] = {
        "dispatch_id": dispatch_id,
        "agent": agent,
        "event_id": event.id,
        "source": event.source,
        "priority": priority,
        "state": State.ACTIVE if state == "active" else State.QUEUED,
        "attempt": attempt,
        "generation": 1,
        "accepted_at": rfc3339(at * 1000),
        "waiting_for": None if state == "active" else _WAITS,
        "event": event.to_wire() if content else HIDDEN,
    }
    if event.sent_by:
        record["sent_by"] = event.sent_by
    if started:
        record["started_at"] = rfc3339(started * 1000)
    if text is not None:
        record |= _ended(_ENDING.validate_json(text), ended - started, content=content)
    return record


def _ended(ending: Ending, elapsed_s: float, *, content: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"elapsed_s": max(0.0, elapsed_s)}
    if ending.failure is not None:
        fields |= {"stage": ending.failure.stage, "error": ending.failure.reason}
        return fields
    answer = ending.answer if content else HIDDEN
    return {**fields, "state": State.COMPLETED, "waiting_for": None, "answer": answer}
