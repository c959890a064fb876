"""An alert in the form of its receiver: Discord, Slack, or plain JSON, by the URL."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

#: Discord refuses longer content; Slack cuts at 40,000.
TEXT_MAX = 1900


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertMessage:
    """One alert to send. `state` is `open`, `closed`, or empty for news that nothing closes."""

    id: str
    name: str
    reason: str
    agent: str = ""
    state: str = ""
    at_ms: int = 0
    suppressed: int = 0  #: alerts before it that a rate limit dropped

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "AlertMessage":
        """Read an alert from the outbox."""
        return cls(**{name: raw[name] for name in cls.__slots__ if name in raw})

    @property
    def text(self) -> str:
        """One line for people."""
        mark = {"open": "ALERT", "closed": "RESOLVED"}.get(self.state, "NOTICE")
        of = f" ({self.agent})" if self.agent else ""
        more = f" [{self.suppressed} more were not sent]" if self.suppressed else ""
        return f"{mark} fleet: {self.name}{of}: {self.reason}{more}"[:TEXT_MAX]


def body(url: str, message: AlertMessage) -> dict[str, Any]:
    """The JSON body for the receiver at `url`."""
    place = urlsplit(url)
    host = place.hostname or ""
    if host.endswith(("discord.com", "discordapp.com")) and "/webhooks/" in place.path:
        # A reason must not mention anybody.
        return {"content": message.text, "allowed_mentions": {"parse": []}}
    if host.endswith("hooks.slack.com"):
        escaped = message.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return {"text": escaped}
    time = datetime.fromtimestamp(message.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return {
        "type": "alert",
        "id": message.id,
        "name": message.name,
        "agent": message.agent or None,
        "state": message.state or None,
        "reason": message.reason,
        "time": time.replace("+00:00", "Z"),
        "suppressed": message.suppressed,
        "text": message.text,
    }
