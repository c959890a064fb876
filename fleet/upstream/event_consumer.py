"""Delivers the gateway's events to the intake, one after the other, and stores the cursor.

WebSocket and polling each deliver the gateway's order from the cursor on, so the id of any accepted
event is a valid cursor. Where both overlap, the cursor only moves back, and the intake recognises
repeated events.
"""

import asyncio
import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from fleet.errors import BrokerUnavailable, IdempotencyConflict, Refused
from fleet.formats import strict_json
from fleet.intake.intake import UPSTREAM, Intake
from fleet.system.backoff import Backoff
from fleet.upstream.cursor_store import CursorStore
from routing import RoutingError
from routing.event import EVENT_BYTES_MAX, NAME_CHARS_MAX

logger = logging.getLogger(__name__)

#: Between attempts to deliver an event while a cap is full or the store is down.
BACKOFF = Backoff(0.5, 15.0, jitter=(0.2, 1.0))
#: Remembered events without an id, so that each refusal is counted once.
KNOWN_MAX = 1000

Answer = TypeVar("Answer")


class EventConsumer:
    """The consumer of one holder of the client's lock. `source` is for events without a source."""

    def __init__(self, intake: Intake, cursors: CursorStore, source: str, cursor: str) -> None:
        self.cursor = cursor
        self._intake = intake
        self._cursors = cursors
        self._source = source
        self._lock = asyncio.Lock()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._waiting = ""

    @property
    def is_blocked(self) -> bool:
        """True while an event cannot be delivered, and the next event waits."""
        return bool(self._waiting)

    async def accept_frame(self, frame: str | bytes) -> None:
        """Accept an event as JSON text, as `accept` does."""
        try:
            raw = strict_json.parse_marked(frame)
        except ValueError:
            async with self._lock:
                await self._refuse_unnamed(frame, "it is not valid JSON")
            return
        await self.accept(raw)

    async def accept(self, raw: object) -> None:
        """Accept an event, or refuse and count it; return when that is stored.

        Waits as long as a cap is full or the store is down. Raises Fenced.
        """
        async with self._lock:
            event_id = _id_of(raw)
            if not isinstance(raw, Mapping) or event_id is None:
                reason = "it is not a JSON object with an `id`, so a repeat could not be recognised"
                await self._refuse_unnamed(_text_of(raw)[0], reason)
                return
            await self._accept_named(raw, event_id)
            await self._retry(lambda: self._cursors.move(event_id))
            self.cursor = event_id

    async def _accept_named(self, raw: Mapping[str, Any], event_id: str) -> None:
        sender, named = UPSTREAM, raw
        if raw.get("source") is None:
            # A host may be called `agent`, which is a reserved source.
            sender, named = replace(UPSTREAM, own_source=True), {**raw, "source": self._source}
        _, fault = _text_of(raw)
        if fault:
            await self._refuse(event_id, fault)
            return
        try:
            await self._retry(lambda: self._intake.accept(named, sender))
        except (RoutingError, IdempotencyConflict) as error:
            await self._refuse(event_id, str(error))

    async def _refuse_unnamed(self, text: str | bytes, reason: str) -> None:
        known = hashlib.sha256(_bytes(text)).hexdigest()
        if known in self._known:
            return
        await self._refuse("", reason)
        self._known[known] = None
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    async def _refuse(self, event_id: str, reason: str) -> None:
        logger.warning("an event of %s was refused for good: %r", self._source, event_id)
        await self._retry(lambda: self._cursors.refused(event_id, reason, self._source))

    async def _retry(self, call: Callable[[], Answer]) -> Answer:
        """Repeat a call while a cap is full or the store is down."""
        failures = 0
        while True:
            try:
                answer = await asyncio.to_thread(call)
            except (Refused, BrokerUnavailable) as error:
                self._log_waiting(str(error))
                requested_s = error.retry_after_s if isinstance(error, Refused) else 0.0
                failures += 1
                delay_s = max(requested_s, BACKOFF.after_s(failures))
                await asyncio.sleep(min(delay_s, BACKOFF.max_s))
            else:
                self._waiting = ""
                return answer

    def _log_waiting(self, reason: str) -> None:
        if not self._waiting:
            logger.warning("the events of %s wait: %s", self._source, reason)
        self._waiting = reason


def _bytes(text: str | bytes) -> bytes:
    return text.encode(errors="surrogatepass") if isinstance(text, str) else text


def _text_of(raw: object) -> tuple[str, str]:
    """The event as JSON, and the reason to refuse it, or an empty string."""
    try:
        text = json.dumps(raw, ensure_ascii=False, default=_refuse_doubled)
    except strict_json.DuplicateKey as error:
        return str(error), str(error)
    except RecursionError:
        text = ""
    if not text or len(_bytes(text)) > EVENT_BYTES_MAX:
        return text, f"it is larger than {EVENT_BYTES_MAX} bytes, or nested too deeply"
    return text, ""


def _refuse_doubled(value: object) -> Any:
    raise value.fault if isinstance(value, strict_json.Doubled) else TypeError(type(value).__name__)


def _id_of(raw: object) -> str | None:
    """The event's id, if the intake would accept it."""
    found = raw.get("id") if isinstance(raw, Mapping) else None
    if not isinstance(found, str) or not found.strip() or not found.isprintable():
        return None
    return found if len(found) <= NAME_CHARS_MAX else None
