"""Live text: a turn's answer while it grows, in chunks for listeners, gone after minutes.

The chunks are content, so they never go on the bus; `GET /dispatches/{id}/stream` relays them. Each
has a position, `<attempt>-<characters so far in the attempt>`, and names the position before it. So
a listener resumes at any chunk, and sees by itself when one is missing. An attempt's text is void
when a later attempt begins the same step again, and a model's text when a fallback takes over. A
chunk of the kind `retry` or `fallback` says so, and no listener shows text twice.

The model is never slowed down. `LiveText.publish` puts a chunk into a bounded queue and returns; a
thread sends the gathered chunks. While the store is slow or away the queue fills, and then chunks
are dropped. A listener loses the live view and nothing else: the outcome holds the answer.
"""

import logging
import re
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from fleet.errors import BrokerUnavailable
from fleet.ledger import Claim
from fleet.store import Store, keys
from fleet.store.calls import ChunkArgs, SpeakCall
from fleet.store.connection import reachable

logger = logging.getLogger(__name__)

#: Chunks gather for so long: less than a reader notices, and one small write for many tokens.
GATHER_S = 0.05
#: Between attempts to publish while the store does not answer.
RETRY_DELAY_S = 1.0
#: A turn that ends waits at most so long until its last chunks are published.
CLOSE_TIMEOUT_S = 0.25
#: Characters of one published chunk: larger ones would keep the server from other work.
CHUNK_CHARS_MAX = 8192
#: Characters that wait to be published; further ones are dropped.
WAITING_CHARS_MAX = 256 * 1024
#: Characters that one attempt may publish, so that an endless answer cannot fill the store.
ATTEMPT_CHARS_MAX = 1024 * 1024
#: Chunks kept of one dispatch: eight minutes of steady text.
KEPT_MAX = 10_000
#: How long the newest chunk is kept while its turn runs on.
KEEP_MS = 10 * 60 * 1000
#: Chunks read at once of one dispatch.
CHUNK = 500

_POSITION = re.compile(r"([0-9]{1,9})-([0-9]{1,12})")


class Kind(StrEnum):
    """Meaning of a chunk."""

    TEXT = "text"
    #: A new attempt begins its step anew: the text of this step and later ones is void.
    RETRY = "retry"
    #: Another model begins the step anew.
    FALLBACK = "fallback"


@dataclass(frozen=True, slots=True, order=True)
class TextPosition:
    """Position in the text of a dispatch; sorts as the chunks do."""

    attempt: int
    characters: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.characters}"


#: Before all text.
BEGINNING = TextPosition(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A stretch of text, or the sign that a step begins anew."""

    place: TextPosition  #: at its end
    before: int  #: characters of the attempt before it
    kind: Kind
    step: int  #: of the turn, from 1; 0 before the first
    offset: int  #: where the text begins in the step's text, in characters
    text: str = ""

    def follows(self, position: TextPosition) -> bool:
        """True when nothing is missing between `position` and this chunk."""
        if self.place.attempt == position.attempt:
            return self.before == position.characters
        # The first attempt with any text has nothing to void.
        return self.place > position and self.before == 0


def parse_position(text: str) -> TextPosition | None:
    """The position, or None when it is malformed."""
    found = _POSITION.fullmatch(text)
    return TextPosition(int(found[1]), int(found[2])) if found else None


class LiveText:
    """Publishes one attempt's text. One thread calls all methods; none of them raises."""

    def __init__(self, store: Store, claim: Claim) -> None:
        self._store = store
        self._claim = claim
        self._characters = 0  #: characters, dropped ones included
        self._step, self._offset = 0, 0
        self._begun = False
        # The turn appends and the thread empties, so without a lock: a time limit may interrupt the
        # turn between any two instructions, and must not leave a lock held.
        self._waiting: deque[Chunk] = deque()
        self._queued = 0  #: characters ever queued, by the turn's thread
        self._sent = 0  #: characters sent of these, by the sending thread
        self._refused = False
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def publish(self, step: int, text: str) -> None:
        """Publish a piece of the text of `step`, soon."""
        if not text or self._refused:
            return
        if not self._begun:
            self._begin(step)
        if step != self._step:
            self._step, self._offset = step, 0
        self._append(Kind.TEXT, len(text), text)
        self._offset += len(text)

    def reset(self, step: int) -> None:
        """Void the text of `step`: another model begins the step anew."""
        if self._begun and step == self._step and self._offset:
            self._offset = 0
            self._append(Kind.FALLBACK, 1)

    def close(self) -> None:
        """Publish the rest, within CLOSE_TIMEOUT_S."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def _begin(self, step: int) -> None:
        self._begun, self._step = True, step
        name = f"live-text-{self._claim.dispatch_id[:8]}"
        self._thread = threading.Thread(target=self._send_all, name=name, daemon=True)
        self._thread.start()
        if self._claim.attempt > 1:
            self._append(Kind.RETRY, 1)

    def _append(self, kind: Kind, length: int, text: str = "") -> None:
        """Queue a chunk of `length` characters, or drop it, which leaves a gap."""
        before, self._characters = self._characters, self._characters + length
        waiting = self._queued - self._sent
        if self._characters > ATTEMPT_CHARS_MAX or waiting + length > WAITING_CHARS_MAX:
            return
        self._queued += length
        chunk = Chunk(
            place=TextPosition(self._claim.attempt, self._characters),
            before=before,
            kind=kind,
            step=self._step,
            offset=self._offset,
            text=text,
        )
        self._waiting.append(chunk)

    def _send_all(self) -> None:
        """Send chunks, in a thread, until the turn has ended or another worker has the agent."""
        unsent: list[Chunk] = []
        pause_s = GATHER_S
        while not self._refused:
            closing = self._closing.wait(pause_s)
            while self._waiting:
                unsent.append(self._waiting.popleft())
            try:
                if unsent:
                    self._send(_joined(unsent))
                    self._sent += sum(chunk.place.characters - chunk.before for chunk in unsent)
                    unsent = []
                pause_s = GATHER_S
            except BrokerUnavailable:
                pause_s = RETRY_DELAY_S
            except Exception:
                logger.exception("the turn is not streamed any more: its text cannot be published")
                return
            if closing:
                return

    def _send(self, chunks: Sequence[Chunk]) -> None:
        claim = self._claim
        args = [
            ChunkArgs(
                place=chunk.place.characters,
                before=chunk.before,
                kind=chunk.kind,
                step=chunk.step,
                offset=chunk.offset,
                text=chunk.text,
            )
            for chunk in chunks
        ]
        call = SpeakCall(
            dispatch_id=claim.dispatch_id,
            fence=claim.fence,
            lease=claim.lease,
            attempt=claim.attempt,
            kept_max=KEPT_MAX,
            keep_ms=KEEP_MS,
            chunks=args,
        )
        # Refused: another worker runs the dispatch now, or it has ended.
        self._refused = not self._store.run(call)


def _joined(chunks: Sequence[Chunk]) -> list[Chunk]:
    """The same chunks with neighbouring texts joined; a gap between two keeps them apart."""
    joined: list[Chunk] = []
    for chunk in chunks:
        last = joined[-1] if joined else None
        if (
            last is not None
            and chunk.kind is last.kind is Kind.TEXT
            and (chunk.step, chunk.before) == (last.step, last.place.characters)
            and len(last.text) + len(chunk.text) <= CHUNK_CHARS_MAX
        ):
            joined[-1] = replace(last, place=chunk.place, text=last.text + chunk.text)
        else:
            joined.append(chunk)
    return joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """New chunks of one dispatch, and its state before they were read."""

    state: str | None  #: None when the ledger does not know the dispatch
    pieces: Sequence[Chunk]


def subscribe(store: Store, after: Mapping[str, TextPosition]) -> dict[str, Message]:
    """The chunks of each dispatch in `after` behind its position, all in one round trip.

    The state is read first: when it is terminal, nothing comes after these chunks, unless there are
    CHUNK of them. Raises BrokerUnavailable.
    """
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        for dispatch_id, position in after.items():
            pipe.hget(keys.dispatch(dispatch_id), "state")
            pipe.xrange(keys.speech(dispatch_id), min=f"({position}", count=CHUNK)
        answers: list[Any] = pipe.execute()
    found = zip(after, answers[::2], answers[1::2], strict=True)
    return {
        dispatch_id: Message(state=state, pieces=[_chunk(name, raw) for name, raw in rows])
        for dispatch_id, state, rows in found
    }


def _chunk(entry_id: str, raw: Mapping[str, str]) -> Chunk:
    attempt, _, characters = entry_id.partition("-")
    return Chunk(
        place=TextPosition(int(attempt), int(characters)),
        before=int(raw["from"]),
        kind=Kind(raw["kind"]),
        step=int(raw["step"]),
        offset=int(raw["offset"]),
        text=raw["text"],
    )
