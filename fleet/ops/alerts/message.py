"""An alert in the form of its receiver: Discord, Slack, or plain JSON, by the URL."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fleet.ledger.views import rfc3339

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
    alert_id: str = ""  #: of the opening, in `fleet alerts` too; empty for one of a machine
    since_ms: int = 0  #: when the condition was reported first; 0 where it is not known

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
    return {
        "type": "alert",
        "id": message.id,
        "name": message.name,
        "agent": message.agent or None,
        "state": message.state or None,
        "reason": message.reason,
        "time": rfc3339(message.at_ms),
        "alert_id": message.alert_id or None,
        "since": rfc3339(message.since_ms) if message.since_ms else None,
        "suppressed": message.suppressed,
        "text": message.text,
    }
