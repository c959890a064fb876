"""The message about an outcome: the same content for every kind of receiver."""

import json
from collections.abc import Mapping
from typing import Any

from fleet.delivery.claims import PendingDelivery
from fleet.ledger.answers import read_trail
from fleet.ledger.protocol import Earlier
from fleet.ledger.views import rfc3339


def message(pending: PendingDelivery) -> dict[str, Any]:
    """`type`, `timestamp` and `data`, as Standard Webhooks recommends; the same in each attempt."""
    record, about = pending.record, pending.about
    data: dict[str, Any] = {
        "dispatch_id": record["id"],
        "event_id": record["event_id"],
        "source": record["source"],
        "agent": record["agent"],
        "session": record.get("session") or None,
        "attempt": int(record["attempt"]),
        "generation": int(record["generation"]),
        "state": about["|outcome"],
    }
    if "|chain" in about:
        return {**_head("chain_ended", about), "data": data | _chain_data(pending)}
    if data["state"] == "completed":
        data["answer"] = pending.answer
        if cut := pending.record.get("cut"):
            data["cut"] = cut
    else:
        data["stage"], data["reason"] = about.get("|stage") or None, about.get("|why") or None
    return {**_head(f"dispatch_{data['state']}", about), "data": data}


def body(pending: PendingDelivery) -> bytes:
    """The message's bytes, as they are posted."""
    return json.dumps(message(pending), ensure_ascii=False).encode()


def cloud_event(pending: PendingDelivery) -> dict[str, Any]:
    """The message as a CloudEvents 1.0 JSON object."""
    content = message(pending)
    return {
        "specversion": "1.0",
        "id": pending.message_id,
        "source": "fleet",
        "type": content["type"],
        "subject": pending.record["event_id"],
        "time": content["timestamp"],
        "datacontenttype": "application/json",
        "data": content["data"],
    }


def as_text(pending: PendingDelivery) -> str:
    """The text for an agent: the answer, or a sentence where there is none."""
    data = message(pending)["data"]
    who = f"Chain {data['chain']}" if "chain" in data else f"{data['agent']}"
    if data["state"] == "completed" and data["answer"].strip():
        return str(data["answer"])
    if data["state"] == "completed":
        return f"{who} completed event {data['event_id']} without an answer."
    why = ": ".join(filter(None, (data.get("stage"), data.get("reason"))))
    sentence = f"{who} did not complete event {data['event_id']}: it is {data['state']}"
    return f"{sentence} ({why})." if why else f"{sentence}."


def _head(kind: str, about: Mapping[str, str]) -> dict[str, Any]:
    return {"type": kind, "timestamp": rfc3339(float(about["|opened_ms"]))}


def _chain_data(pending: PendingDelivery) -> dict[str, Any]:
    """Data of a chain's end: its last answer, where it completed, and each stage's answer."""
    stages = read_trail(pending.trail)
    answers = [end.answer for end in stages if end.state == "completed" and end.answer]
    found: dict[str, Any] = {
        "chain": pending.about["|chain"],
        "chain_id": pending.record["chain_id"],
        "reason": pending.about["|why"],
        "stages": [_stage_data(end) for end in stages],
    }
    if pending.about["|outcome"] == "completed":
        found["answer"] = answers[-1] if answers else ""
    return found


def _stage_data(end: Earlier) -> dict[str, Any]:
    kept = ("stage", "stage_name", "round", "agent", "state", "verdict")
    found = {name: getattr(end, name) for name in kept}
    return found | ({"answer": end.answer} if end.state == "completed" else {})
