"""What can be told of a dispatch that only the spool knows yet."""

from typing import Any

from pydantic import TypeAdapter

from fleet.formats.redaction import HIDDEN
from fleet.intake.spool.file import SpoolFile
from fleet.ledger import State
from fleet.ledger.payload import read_payload
from fleet.ledger.protocol import Ending
from fleet.ledger.views import rfc3339

_ENDING = TypeAdapter(Ending)
_WAITS = "the broker to be back"


def query(file: SpoolFile, dispatch_id: str, *, content: bool) -> dict[str, Any] | None:
    """One dispatch as `fleet.ledger.views.get` tells it; None where it may not run from the spool.

    One that failed is told as `queued`: the ledger decides whether it is tried again. Raises
    SpoolFull.
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
    told: dict[str, Any] = {"elapsed_s": max(0.0, elapsed_s)}
    if ending.failure is not None:
        told |= {"stage": ending.failure.stage, "error": ending.failure.reason}
        return told
    answer = ending.answer if content else HIDDEN
    return {**told, "state": State.COMPLETED, "waiting_for": None, "answer": answer}
