"""Delivery to an agent: the outcome becomes an event, and the agent's turn confirms it."""

from collections.abc import Callable
from typing import Any

from fleet.delivery.claims import AttemptResult, PendingDelivery
from fleet.delivery.message import as_text, message
from fleet.errors import Refused
from fleet.formats.hop_count import source_of
from fleet.intake.intake import FLEET, Intake
from fleet.ledger.answers import read_payload
from fleet.store import Store, keys
from fleet.store.connection import reachable
from routing import RoutingError


def deliver_to_agent(
    store: Store, intake: Callable[[], Intake], pending: PendingDelivery, agent: str
) -> AttemptResult:
    """Send `agent` the outcome as an event, one hop further. A repeated call is the same event.

    Raises BrokerUnavailable.
    """
    with reachable():
        payload = str(store.client.get(keys.payload(pending.record["event"])) or "")
    if not payload:
        return AttemptResult(
            kind="unverified", reason="the event of this outcome is not stored any more"
        )
    event = read_payload(payload)
    data, chain = message(pending)["data"], pending.about.get("|chain")
    data.pop("answer", None)
    data.pop("stages", None)
    raw: dict[str, Any] = {
        "id": pending.message_id,
        "source": f"chain:{chain}" if chain else source_of(pending.record["agent"]),
        "type": message(pending)["type"],
        "to": agent,
        "text": as_text(pending),
        "data": {"outcome": data},
    }
    if event.session is not None:
        raw["session"] = event.session
    if event.traceparent:
        raw["traceparent"] = event.traceparent
    try:
        accepted = intake().accept(event.forward(raw), FLEET)
    except Refused as error:
        return AttemptResult(kind="failed", reason=str(error), retry_after_s=error.retry_after_s)
    except RoutingError as error:
        return AttemptResult(
            kind="unverified", reason=f"{agent} cannot be sent the outcome: {error}"
        )
    placed = next((id_ for id_, name in accepted.dispatches if name == agent), "")
    if not placed:
        return AttemptResult(kind="unverified", reason="another event has its source and its id")
    return AttemptResult(kind="placed", reason=f"{agent} has it as {placed}", placed=placed)
