"""The calls of the scripts about alerts. The meaning of each argument is in its legend."""

from typing import Literal

from fleet.store.calls import Flag
from fleet.store.script import ScriptCall


class AlertsCall(ScriptCall[int]):
    """Compare the conditions that hold with those that were reported."""

    conditions: str
    news: str
    cursor: str
    again_ms: int
    per_minute: int
    outbox_max: int
    sends: Flag
    silence_ms: int
    past_max: int


class AlertsOutboxCall(ScriptCall[str | int]):
    """Acquire the oldest alert that waits to be sent, or report that it was sent."""

    verb: Literal["take", "done"]
    sending_ms: int = 0
    stale_ms: int = 0
    message_id: str = ""


class AlertOverCall(ScriptCall[int]):
    """Keep an alert of one machine that is over."""

    record: str
    past_max: int


class AlertMarkCall(ScriptCall[str]):
    """Silence an alert, end a silence, or acknowledge an alert."""

    verb: Literal["silence", "unsilence", "ack"]
    target: str
    alert_id: str = ""
    name: str = ""
    agent: str = ""
    by: str = ""
    comment: str = ""
    for_ms: int = 0
    silences_max: int = 0


class StartingCall(ScriptCall[int]):
    """Record which agents are about to be started."""

    names: list[str]


class RefusingCall(ScriptCall[int]):
    """Count a refusal of Celery's way in."""

    gap_ms: int
