"""An outcome becomes an event for another agent, which confirms it by having its turn."""

import json
from collections.abc import Callable
from typing import Any

from fleet.delivery.claims import AttemptResult, PendingDelivery
from fleet.delivery.message import in_words, message
from fleet.errors import Refused
from fleet.formats.hop_count import source_of
from fleet.intake.intake import FLEET, Intake
from fleet.ledger.payload import read_payload
from fleet.store import Store, keys
from fleet.store.connection import reachable
from routing import RoutingError
from routing.event import EVENT_BYTES_MAX


def deliver_to_agent(
    store: Store, intake: Callable[[], Intake], told: PendingDelivery, agent: str
) -> AttemptResult:
    """Give `agent` the outcome as an event, one hop further. A repeated call is the same event.

    Raises BrokerUnavailable.
    """
    with reachable():
        payload = str(store.client.get(keys.payload(told.record["event"])) or "")
    if not payload:
        return AttemptResult(kind="unverified", reason="the event it is the outcome of is not kept")
    event = read_payload(payload)
    data, chain = message(told)["data"], told.about.get("|chain")
    data.pop("answer", None)
    data.pop("stages", None)
    raw: dict[str, Any] = {
        "id": told.message_id,
        "source": f"chain:{chain}" if chain else source_of(told.record["agent"]),
        "type": message(told)["type"],
        "to": agent,
        "text": in_words(told),
        "data": {"outcome": data},
    }
    if event.session is not None:
        raw["session"] = event.session
    if event.traceparent:
        raw["traceparent"] = event.traceparent
    if len(json.dumps(raw, ensure_ascii=False).encode(errors="replace")) > EVENT_BYTES_MAX:
        return AttemptResult(kind="unverified", reason="it is larger than an event may be")
    try:
        accepted = intake().accept(event.forward(raw), FLEET)
    except Refused as error:
        return AttemptResult(kind="failed", reason=str(error), retry_after_s=error.retry_after_s)
    except RoutingError as error:
        return AttemptResult(kind="unverified", reason=f"{agent} cannot be given it: {error}")
    placed = next((one for one, name in accepted.dispatches if name == agent), "")
    if not placed:
        return AttemptResult(kind="unverified", reason="another event has its source and its id")
    return AttemptResult(kind="placed", reason=f"{agent} has it as {placed}", placed=placed)
