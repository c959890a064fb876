"""What a receiver is told of an outcome: the same words by whatever way they go."""

import json
from collections.abc import Mapping
from typing import Any

from fleet.delivery.claims import PendingDelivery
from fleet.ledger.chained import Earlier, read_trail
from fleet.ledger.views import rfc3339


def message(told: PendingDelivery) -> dict[str, Any]:
    """`type`, `timestamp` and `data`, as Standard Webhooks recommends. The same at each try."""
    record, about = told.record, told.about
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
        return {**_head("chain_ended", about), "data": data | _of_chain(told)}
    if data["state"] == "completed":
        data["answer"] = told.answer
    else:
        data["stage"], data["reason"] = about.get("|stage") or None, about.get("|why") or None
    return {**_head(f"dispatch_{data['state']}", about), "data": data}


def body(told: PendingDelivery) -> bytes:
    """The message as it is posted."""
    return json.dumps(message(told), ensure_ascii=False).encode()


def cloud_event(told: PendingDelivery) -> dict[str, Any]:
    """The message as a CloudEvents 1.0 JSON object."""
    said = message(told)
    return {
        "specversion": "1.0",
        "id": told.message_id,
        "source": "fleet",
        "type": said["type"],
        "subject": told.record["event_id"],
        "time": said["timestamp"],
        "datacontenttype": "application/json",
        "data": said["data"],
    }


def in_words(told: PendingDelivery) -> str:
    """What an agent is told: the answer, or a sentence where there is none."""
    data = message(told)["data"]
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


def _of_chain(told: PendingDelivery) -> dict[str, Any]:
    """Its last answer stands for the chain, where it completed; each stage's is beside it."""
    stages = read_trail(told.trail)
    answers = [one.answer for one in stages if one.state == "completed" and one.answer]
    found: dict[str, Any] = {
        "chain": told.about["|chain"],
        "chain_id": told.record["chain_id"],
        "reason": told.about["|why"],
        "stages": [_stage(one) for one in stages],
    }
    if told.about["|outcome"] == "completed":
        found["answer"] = answers[-1] if answers else ""
    return found


def _stage(one: Earlier) -> dict[str, Any]:
    kept = ("stage", "stage_name", "round", "agent", "state", "verdict")
    found = {name: getattr(one, name) for name in kept}
    return found | ({"answer": one.answer} if one.state == "completed" else {})
