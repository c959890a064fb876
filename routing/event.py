"""The event: an immutable envelope in CloudEvents 1.0 terms, and its limits.

There are two wire forms. A CloudEvents structured JSON object carries target and text in `data`
(`{"to": ..., "text": ...}`, or a bare string as the text); the shorthand is
`{"to": ..., "text": ...}` itself. Both become the same `Event`, so the same `source` and `id` of
one sender mean the same event in any form.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from routing.errors import InvalidEvent

#: The whole event as JSON, in bytes. Larger ones are refused with 413 before they are parsed.
EVENT_BYTES_MAX = 1024 * 1024
#: Ids, sources, types, sessions: long enough for URNs and trace ids, short enough for a key.
NAME_CHARS_MAX = 256
#: The largest supported fleet has 1,000 agents, so a longer list is a mistake.
TARGETS_MAX = 1000
#: Deeper JSON than this is an attack on parsers; real payloads stay below ten.
DEPTH_MAX = 64
#: 0 waits behind all others, 9 goes first.
PRIORITIES = range(10)
PRIORITY_DEFAULT = 5
#: Names of priorities for senders, and the lanes of events that name none.
LANE_DEFAULT, LANE_OF_AGENTS = "default", "background"
LANES: Mapping[str, int] = {"human": 9, LANE_DEFAULT: PRIORITY_DEFAULT, LANE_OF_AGENTS: 0}
#: The highest value of `routes.max_hops`.
HOPS_MAX = 1000

#: The source of an event without a source. All intakes share it, so `id` alone deduplicates.
SOURCE_DEFAULT = "fleet"
TYPE_DEFAULT = "fleet.message"
#: Prefixes of the sources of the fleet's own events.
RESERVED_SOURCES = ("agent:", "chain:", "mcp:", "upstream:")

#: The sender of events from inside: the command line, Celery, an API without tokens.
SENT_LOCALLY = ""
#: The senders of the fleet's own events, and of the gateway's.
SENT_BY_FLEET, SENT_BY_GATEWAY = "fleet", "upstream"

OWN_FIELDS = frozenset({"to", "text", "session", "priority", "lane"})
_SHORTHAND = OWN_FIELDS | {"id", "source", "type", "subject", "time", "hops", "traceparent", "data"}
#: The W3C's trace context, as CloudEvents' extension for distributed tracing carries it.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
#: Length of a sender's key in a sentence, after non-ASCII characters were escaped.
_SHOWN_CHARS_MAX = 60
_SURROGATE = re.compile("[\ud800-\udfff]")
#: Printable characters without a glyph: Unicode's default-ignorable ones of categories M and L.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
#: Made once: `json.dumps` makes an encoder for each text.
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_plain = json.JSONEncoder(ensure_ascii=False).encode
_sorted = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
#: A NUL in the form of `json.dumps`; an escaped backslash before `u0000` is only text.
_NUL_AS_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A message to agents: `text` is the prompt, `data` further structured content."""

    id: str
    source: str
    type: str
    time: str
    text: str
    to: tuple[str, ...] = ()
    subject: str | None = None
    session: str | None = None
    priority: int = PRIORITY_DEFAULT
    #: The number of agents' turns before it: 0 when a person or a program sent it.
    hops: int = 0
    #: Its trace; may be empty.
    traceparent: str = ""
    #: The authenticated sender; not part of any wire form.
    sent_by: str = SENT_LOCALLY
    #: The dispatch whose event was sent again as this one; not part of any wire form.
    resent_from: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        raw: object,
        *,
        new_id: str,
        now: str,
        traceparent: str = "",
        lanes: Mapping[str, int] = LANES,
        sent_by: str = SENT_LOCALLY,
        resent_from: str = "",
    ) -> "Event":
        """Parse either wire form.

        `new_id`, `now` (RFC 3339) and `traceparent` fill absent fields.

        A lane of `lanes` stands for its priority; an explicit priority overrides it.

        Raises InvalidEvent with one sentence that names the field.
        """
        if not isinstance(raw, Mapping):
            raise InvalidEvent("The event must be a JSON object, such as {'to': ..., 'text': ...}.")
        _check_depth(raw)
        cloud = "specversion" in raw or ("type" in raw and "data" in raw)
        own, data = _cloud_parts(raw) if cloud else _shorthand_parts(raw)
        hops = _hops(raw.get("hops"))
        return cls(
            id=_name(raw, "id", new_id),
            source=_name(raw, "source", SOURCE_DEFAULT),
            type=_name(raw, "type", TYPE_DEFAULT),
            # Some senders write an empty one for none.
            subject=_name(raw, "subject", None) if raw.get("subject") not in (None, "") else None,
            time=_time(raw.get("time"), now),
            session=_name(own, "session", None) if own.get("session") is not None else None,
            priority=_priority(own.get("priority"), own.get("lane"), hops, lanes),
            hops=hops,
            traceparent=_traceparent(raw.get("traceparent"), traceparent),
            sent_by=sent_by,
            resent_from=resent_from,
            to=_targets(own.get("to")),
            text=_text(own.get("text"), data),
            data=data,
        )

    @property
    def key(self) -> str:
        """The identity of the event: its source, id and sender, unambiguously joined."""
        return event_key(self.source, self.id, self.sent_by)

    @property
    def content(self) -> str:
        """A digest of `to`, `text`, `data`, `type`, `subject`, `session` and `priority`.

        It excludes `time`, `hops` and `traceparent`, which the intake fills in or a repeated call
        changes. The order of fields in `data` does not matter. The digest is empty for the fleet's
        own events, whose ids are exact.
        """
        if self.sent_by == SENT_BY_FLEET:
            return ""
        text = None if self.text == _as_text(self.data) else self.text
        found = (self.to, text, self.type, self.subject, self.session, self.priority, self.data)
        words = _sorted(found)
        return hashlib.sha256(words.encode()).hexdigest()[:40]

    def forward(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Set the hops of `raw`, an event sent by a turn of this event, whatever `raw` claims.

        Every event of an agent must pass here; the hop limit ends a loop of agents that call each
        other.
        """
        return {**raw, "hops": self.hops + 1}

    def to_wire(self) -> dict[str, Any]:
        """The event as a CloudEvents 1.0 structured JSON object; `parse` reads it back."""
        data: dict[str, Any] = {**self.data, "text": self.text, "priority": self.priority}
        if self.to:
            data["to"] = list(self.to)
        if self.session is not None:
            data["session"] = self.session
        wire: dict[str, Any] = {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "time": self.time,
            "data": data,
        }
        if self.subject is not None:
            wire["subject"] = self.subject
        if self.hops:
            wire["hops"] = self.hops  # a CloudEvents extension attribute
        if self.traceparent:
            wire["traceparent"] = self.traceparent
        return wire


def check_size(raw: object) -> None:
    """Raise InvalidEvent for an event that is larger than any interface accepts."""
    size = 0
    with suppress(RecursionError, TypeError, ValueError):  # `Event.parse` says what is wrong
        size = len(_plain(raw).encode(errors="replace"))
    if size > EVENT_BYTES_MAX:
        raise InvalidEvent(f"The event is larger than {EVENT_BYTES_MAX} bytes; send less.")


def event_key(source: str, event_id: str, sent_by: str = SENT_LOCALLY) -> str:
    """The key of an event by source, id and sender; none of the three may hold a newline."""
    return f"{source}\n{event_id}\n{sent_by}" if sent_by else f"{source}\n{event_id}"


def is_reserved(source: str) -> bool:
    """True for a source of the fleet's own, also in look-alike letters or with blanks."""
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", source))
    return "".join(plain.casefold().split()).startswith(RESERVED_SOURCES)


def _cloud_parts(raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a CloudEvent into the fleet's fields and the rest of the data.

    Extension attributes may carry the fleet's fields too.
    """
    if raw.get("specversion", "1.0") != "1.0":
        raise InvalidEvent("`specversion` must be '1.0', the only CloudEvents version spoken here.")
    if "data_base64" in raw:
        raise InvalidEvent(
            "`data_base64` is not supported: send `data` as a JSON object or a string."
        )
    data = raw.get("data")
    if isinstance(data, str):
        data = {"text": data}
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        raise InvalidEvent("`data` must be a JSON object with a `text`, or a string.")
    own = {k: raw[k] for k in OWN_FIELDS if k in raw}
    own.update({k: data[k] for k in OWN_FIELDS if k in data})
    rest = {k: v for k, v in data.items() if k not in OWN_FIELDS}
    return own, rest


def _shorthand_parts(raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    unknown = [k for k in raw if k not in _SHORTHAND]
    if unknown:
        raise InvalidEvent(
            f"The event has an unknown field {_shown(unknown[0])}; the shorthand knows "
            f"{', '.join(sorted(_SHORTHAND))}."
        )
    data = raw.get("data") or {}
    if not isinstance(data, Mapping):
        raise InvalidEvent("`data` must be a JSON object.")
    clash = [k for k in data if k in OWN_FIELDS]
    if clash:
        raise InvalidEvent(
            f"`data.{clash[0]}` clashes with the event's own `{clash[0]}`: keep one."
        )
    return {k: raw[k] for k in OWN_FIELDS if k in raw}, dict(data)


def _name(raw: Mapping[str, Any], key: str, default: str | None) -> str:
    value = raw.get(key)
    if value is None:
        value = default
    if not isinstance(value, str) or not value.strip():
        raise InvalidEvent(f"`{key}` must be a non-empty string.")
    if len(value) > NAME_CHARS_MAX:
        raise InvalidEvent(f"`{key}` is longer than {NAME_CHARS_MAX} characters.")
    if not value.isprintable():
        raise InvalidEvent(
            f"`{key}` must hold printable characters only: no newline, NUL or control."
        )
    return value


def _time(value: object, now: str) -> str:
    if value is None:
        return now
    parsed, text = None, ""
    # Python accepts any character between date and time, even a NUL.
    if isinstance(value, str) and value.isascii() and value.isprintable():
        # RFC 3339 allows `t` and `z`, which not every reader of the stored time knows.
        text = value.upper()
        with suppress(ValueError):
            parsed = datetime.fromisoformat(text)
    if parsed is None or parsed.tzinfo is None:
        raise InvalidEvent(
            "`time` must be an RFC 3339 timestamp with a zone, as 2026-11-21T10:00:00Z."
        )
    return text


def _priority(value: object, lane: object, hops: int, lanes: Mapping[str, int]) -> int:
    """The priority, or that of the lane. An unmarked event of a turn never overtakes a person's."""
    if lane is not None and (not isinstance(lane, str) or lane not in lanes):
        raise InvalidEvent(f"`lane` must be one of {', '.join(sorted(lanes))}.")
    if value is None:
        return lanes[lane or (LANE_OF_AGENTS if hops else LANE_DEFAULT)]
    if not isinstance(value, int) or isinstance(value, bool) or value not in PRIORITIES:
        raise InvalidEvent("`priority` must be a whole number from 0 (last) to 9 (first).")
    return value


def _hops(value: object) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= HOPS_MAX:
        raise InvalidEvent(f"`hops` must be a whole number from 0 to {HOPS_MAX}.")
    return value


def _traceparent(value: object, default: str) -> str:
    """The trace; a malformed trace is dropped, and the event stays valid (W3C Trace Context)."""
    value = default if value is None else value
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else ""


def _targets(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items:
        raise InvalidEvent("`to` must be a target or a non-empty list of targets.")
    if len(items) > TARGETS_MAX:
        raise InvalidEvent(f"`to` names more than {TARGETS_MAX} targets.")
    if not all(isinstance(item, str) and item.strip() for item in items):
        raise InvalidEvent("each target in `to` must be a non-empty string.")
    return tuple(dict.fromkeys(item.strip() for item in items))


def _text(value: object, data: Mapping[str, Any]) -> str:
    if value is None and data:
        value = _as_text(data)
    if value is None:
        raise InvalidEvent("The event has no `text`.")
    if not isinstance(value, str):
        raise InvalidEvent("`text` must be a string.")
    if not value.strip():
        raise InvalidEvent("`text` is empty.")
    try:
        rest = json.dumps(data, ensure_ascii=False, allow_nan=False, default=str) if data else ""
    except ValueError as error:
        raise InvalidEvent("The event holds a number that is not finite.") from error
    if "\0" in value or _NUL_AS_JSON.search(rest):
        raise InvalidEvent("The event holds a NUL character: remove it.")
    if _SURROGATE.search(value) or _SURROGATE.search(rest):
        raise InvalidEvent(
            "The event holds a lone surrogate, which is not Unicode text: remove it."
        )
    return value


def _as_text(data: Mapping[str, Any]) -> str:
    """The text of an event without text."""
    return _compact(data)


def _check_depth(raw: object) -> None:
    """Raise InvalidEvent for excessive nesting; iterative, so the check itself cannot overflow."""
    level: list[Any] = [raw]
    for _ in range(DEPTH_MAX):
        children = [
            child
            for node in level
            for child in (node.values() if isinstance(node, Mapping) else node)
        ]
        level = [child for child in children if isinstance(child, Mapping | list | tuple)]
        if not level:
            return
    raise InvalidEvent(f"The event is nested deeper than {DEPTH_MAX} levels.")


def _shown(key: object) -> str:
    """A sender's key, safe to repeat in a sentence."""
    text = repr(str(key)[:40]).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}..."
