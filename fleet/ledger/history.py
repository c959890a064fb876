"""The history of a session: written with an outcome, given to the session's next turn.

A session has one history, whichever agents take part. It is written by `commit.lua` in the step
that completes a turn, so a failed attempt leaves nothing behind, and a turn is in it once. It is
bounded by messages and by tokens, oldest forgotten first. A token is counted as four bytes of a
stored message: near enough for a bound (English is 4 to 5 bytes a token, Chinese about 4), and no
model's own counter has to be loaded for it.

A message from the store is checked again. A message of neither a user nor an assistant is dropped,
and never becomes a system's or a tool's.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleet.store import keys
from routing import Event

logger = logging.getLogger(__name__)

BYTES_PER_TOKEN = 4
ROLES = frozenset({"user", "assistant"})
_FIELDS = frozenset({"role", "agent", "event", "text"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMessage:
    """One message of a conversation."""

    role: str  #: `user` or `assistant`
    agent: str  #: who answered; empty for a user's message
    event: str  #: the digest of the event that it belongs to
    text: str


def written(event: Event, agent: str, text: str, answer: str) -> tuple[str, str]:
    """The two messages that a completed turn adds, as they are stored: event and answer."""
    digest = keys.event_digest(event.key)
    question = {"role": "user", "agent": "", "event": digest, "text": text}
    answered = {"role": "assistant", "agent": agent, "event": digest, "text": answer}
    return _stored(question), _stored(answered)


def recalled(stored: Sequence[str], event: Event) -> tuple[SessionMessage, ...]:
    """The history for a turn about `event`, oldest first; it begins with a message of a user.

    Answers of other agents to the same event are left out: these agents ran at the same time.
    """
    found = [_checked(text) for text in stored]
    messages = [message for message in found if message is not None]
    if len(messages) < len(found):
        logger.warning(
            "%d messages of a history are none of a user or an assistant and were dropped",
            len(found) - len(messages),
        )
    digest = keys.event_digest(event.key)
    messages = [message for message in messages if message.event != digest]
    while messages and messages[0].role != "user":
        del messages[0]
    return tuple(messages)


def _stored(message: dict[str, str]) -> str:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def _checked(stored: str) -> SessionMessage | None:
    try:
        raw: Any = json.loads(stored)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or raw.keys() != _FIELDS:
        return None
    if not all(isinstance(value, str) for value in raw.values()):
        return None
    if raw["role"] not in ROLES or not raw["text"].strip():
        return None
    return SessionMessage(**raw)
