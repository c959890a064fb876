"""Hands the gateway's events to the intake, one after the other, and keeps the place.

Each way in delivers the gateway's order from a place up to which everything was dealt with. So the
id of an event that was accepted is a place as well, whichever way it came; the overlap of two ways
only moves the place back, and what comes twice is the same event to the intake.
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
from fleet.intake.intake import UPSTREAM, Intake
from fleet.system.backoff import Backoff
from fleet.upstream.cursor_store import CursorStore
from routing import RoutingError
from routing.event import EVENT_BYTES_MAX, NAME_CHARS_MAX

logger = logging.getLogger(__name__)

#: Between attempts to hand over what a full cap, or a store that is away, keeps out.
BACKOFF = Backoff(0.5, 15.0, jitter=(0.2, 1.0))
#: Refused events without an id that are known again, so that each is counted once.
KNOWN_MAX = 1000

Answer = TypeVar("Answer")


class EventConsumer:
    """Of one holder of the client's lock. `source` is for events that name none."""

    def __init__(self, intake: Intake, desk: CursorStore, source: str, cursor: str) -> None:
        self.cursor = cursor
        self._intake = intake
        self._desk = desk
        self._source = source
        self._one_by_one = asyncio.Lock()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._waiting = ""

    @property
    def is_held_up(self) -> bool:
        """True while an event cannot be handed over, and the next one waits."""
        return bool(self._waiting)

    async def accept_frame(self, frame: str | bytes) -> None:
        """As `take`, of an event as JSON text."""
        try:
            raw = parse(frame)
        except ValueError:
            async with self._one_by_one:
                await self._refuse_unnamed(frame, "it is not valid JSON")
            return
        await self.accept(raw)

    async def accept(self, raw: object) -> None:
        """Accept one event, or refuse and count it; return when that is kept.

        Waits as long as a cap is full or the store is away. Raises Fenced.
        """
        async with self._one_by_one:
            event_id = _id_of(raw)
            if not isinstance(raw, Mapping) or event_id is None:
                what = (
                    "it is no JSON object with an `id`, and could not be told from a repeated one"
                )
                await self._refuse_unnamed(_text_of(raw), what)
                return
            await self._take(raw, event_id)
            await self._persist(lambda: self._desk.move(event_id))
            self.cursor = event_id

    async def _take(self, raw: Mapping[str, Any], event_id: str) -> None:
        sender, named = UPSTREAM, raw
        if raw.get("source") is None:
            # A host may be called `agent`.
            sender, named = replace(UPSTREAM, own_source=True), {**raw, "source": self._source}
        text = _text_of(raw)
        if not text or len(_bytes(text)) > EVENT_BYTES_MAX:
            reason = f"it is larger than {EVENT_BYTES_MAX} bytes, or nested too deeply"
            await self._refuse(event_id, reason)
            return
        try:
            await self._persist(lambda: self._intake.accept(named, sender))
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
        await self._persist(lambda: self._desk.refused(event_id, reason, self._source))

    async def _persist(self, call: Callable[[], Answer]) -> Answer:
        """The answer of a call that a full cap or an outage only delays."""
        failures = 0
        while True:
            try:
                answer = await asyncio.to_thread(call)
            except (Refused, BrokerUnavailable) as error:
                self._tell(str(error))
                asked_s = error.retry_after_s if isinstance(error, Refused) else 0.0
                failures += 1
                await asyncio.sleep(min(max(asked_s, BACKOFF.after_s(failures)), BACKOFF.max_s))
            else:
                self._waiting = ""
                return answer

    def _tell(self, why: str) -> None:
        if not self._waiting:
            logger.warning("the events of %s wait: %s", self._source, why)
        self._waiting = why


def parse(text: str | bytes) -> Any:
    """Strict JSON. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _bytes(text: str | bytes) -> bytes:
    return text.encode(errors="surrogatepass") if isinstance(text, str) else text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _text_of(raw: object) -> str:
    """As JSON; empty for what is nested too deeply to be written, though it could be read."""
    try:
        return json.dumps(raw, ensure_ascii=False)
    except RecursionError:
        return ""


def _id_of(raw: object) -> str | None:
    """The event's id, where it is one that the intake would take."""
    found = raw.get("id") if isinstance(raw, Mapping) else None
    if not isinstance(found, str) or not found.strip() or not found.isprintable():
        return None
    return found if len(found) <= NAME_CHARS_MAX else None
