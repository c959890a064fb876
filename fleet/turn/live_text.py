"""What a turn says while it says it: pieces of text for whoever listens, gone after minutes.

The pieces are content, so they never go on the bus; `GET /dispatches/{id}/stream` relays them. Each
has a place, `<attempt>-<characters said so far in the attempt>`, and names the place before it: so
a listener resumes at any piece, and sees by itself when one is missing. What an attempt said is
void when a later one begins the same step again, and so is what one model said when a fallback
takes over: a piece of the kind `retry` or `fallback` says so, and no listener shows text twice.

The model is never slowed down. `Speech.say` puts a piece into a bounded queue and returns; a thread
publishes what has gathered there. While the store is slow or away the queue fills, and then pieces
are dropped. That costs a listener the live view and nothing else: the outcome holds the answer.
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

#: Pieces gather for so long: below what a reader notices, and one small write for many tokens.
GATHER_S = 0.05
#: The store is asked again after this long when it did not answer.
RETRY_S = 1.0
#: A turn that ends waits so long for its last pieces to be published, and no longer.
CLOSE_S = 0.25
#: Characters of one published piece: larger ones would keep the server from others.
PIECE_CHARS_MAX = 8192
#: Characters that wait to be published; what comes on top is dropped.
WAITING_CHARS_MAX = 256 * 1024
#: Characters that one attempt may publish, so that an endless answer cannot fill the store.
SAID_CHARS_MAX = 1024 * 1024
#: Pieces kept of one dispatch: eight minutes of steady speech.
KEPT_MAX = 10_000
#: How long the newest piece is kept while its turn runs on.
KEEP_MS = 10 * 60 * 1000
#: Pieces read at once of one dispatch.
CHUNK = 500

_PLACE = re.compile(r"([0-9]{1,9})-([0-9]{1,12})")


class Kind(StrEnum):
    """What a piece means."""

    TEXT = "text"
    #: A new attempt begins its step anew: what was said of this step and later ones is void.
    RETRY = "retry"
    #: Another model begins the step anew.
    FALLBACK = "fallback"


@dataclass(frozen=True, slots=True, order=True)
class TextPosition:
    """How far a dispatch has spoken; sorts as the pieces do."""

    attempt: int
    said: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.said}"


#: Before everything that was said.
BEGINNING = TextPosition(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A stretch of text, or the sign that a step begins anew."""

    place: TextPosition  #: behind it
    before: int  #: characters said in the attempt before it
    kind: Kind
    step: int  #: of the turn, from 1; 0 before its first
    offset: int  #: where the text begins in the step's text, in characters
    text: str = ""

    def follows(self, place: TextPosition) -> bool:
        """True when nothing is missing between `place` and this piece."""
        if self.place.attempt == place.attempt:
            return self.before == place.said
        # The first attempt that says anything has nothing to take back.
        return self.place > place and self.before == 0


def parse_position(text: str) -> TextPosition | None:
    """The place, or None when it is malformed."""
    found = _PLACE.fullmatch(text)
    return TextPosition(int(found[1]), int(found[2])) if found else None


class LiveText:
    """What one attempt says. One thread calls `say`, `again` and `close`; none of them raises."""

    def __init__(self, store: Store, claim: Claim) -> None:
        self._store = store
        self._claim = claim
        self._said = 0  #: characters, dropped ones included
        self._step, self._offset = 0, 0
        self._begun = False
        # Appended to here and emptied there, so no lock: a time limit may strike the turn between
        # any two instructions, and must not leave one locked.
        self._waiting: deque[Chunk] = deque()
        self._queued = 0  #: characters ever put there, by the turn's thread
        self._taken = 0  #: characters published of these, by the publishing thread
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
        """What was said of `step` is void: another model begins it anew."""
        if self._begun and step == self._step and self._offset:
            self._offset = 0
            self._append(Kind.FALLBACK, 1)

    def close(self) -> None:
        """Publish what is left, within CLOSE_S."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _begin(self, step: int) -> None:
        self._begun, self._step = True, step
        name = f"speech-{self._claim.dispatch_id[:8]}"
        self._thread = threading.Thread(target=self._publish, name=name, daemon=True)
        self._thread.start()
        if self._claim.attempt > 1:
            self._append(Kind.RETRY, 1)

    def _append(self, kind: Kind, length: int, text: str = "") -> None:
        """Queue a piece that takes `length` places, or drop it, which leaves a gap."""
        before, self._said = self._said, self._said + length
        waiting = self._queued - self._taken
        if self._said > SAID_CHARS_MAX or waiting + length > WAITING_CHARS_MAX:
            return
        self._queued += length
        place = TextPosition(self._claim.attempt, self._said)
        piece = Chunk(
            place=place, before=before, kind=kind, step=self._step, offset=self._offset, text=text
        )
        self._waiting.append(piece)

    def _publish(self) -> None:
        """The thread: until the turn has ended or is no longer this one's."""
        unsent: list[Chunk] = []
        pause_s = GATHER_S
        while not self._refused:
            closing = self._closing.wait(pause_s)
            while self._waiting:
                unsent.append(self._waiting.popleft())
            try:
                if unsent:
                    self._send(_joined(unsent))
                    self._taken += sum(piece.place.said - piece.before for piece in unsent)
                    unsent = []
                pause_s = GATHER_S
            except BrokerUnavailable:
                pause_s = RETRY_S
            except Exception:
                logger.exception("what a turn says is no longer published")
                return
            if closing:
                return

    def _send(self, pieces: Sequence[Chunk]) -> None:
        claim = self._claim
        chunks = [
            ChunkArgs(
                place=piece.place.said,
                before=piece.before,
                kind=piece.kind,
                step=piece.step,
                offset=piece.offset,
                text=piece.text,
            )
            for piece in pieces
        ]
        call = SpeakCall(
            dispatch_id=claim.dispatch_id,
            fence=claim.fence,
            attempt=claim.attempt,
            kept_max=KEPT_MAX,
            keep_ms=KEEP_MS,
            chunks=chunks,
        )
        # Refused: somebody else runs the dispatch now, or it has ended.
        self._refused = not self._store.run(call)


def _joined(pieces: Sequence[Chunk]) -> list[Chunk]:
    """The same with neighbouring texts as one; what was dropped between two keeps them apart."""
    joined: list[Chunk] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if (
            last is not None
            and piece.kind is last.kind is Kind.TEXT
            and (piece.step, piece.before) == (last.step, last.place.said)
            and len(last.text) + len(piece.text) <= PIECE_CHARS_MAX
        ):
            joined[-1] = replace(last, place=piece.place, text=last.text + piece.text)
        else:
            joined.append(piece)
    return joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What was new of one dispatch: pieces, and the state that it was in before they were read."""

    state: str | None  #: None when the ledger does not know the dispatch
    pieces: Sequence[Chunk]


def subscribe(store: Store, after: Mapping[str, TextPosition]) -> dict[str, Message]:
    """What each dispatch of `after` has said behind its place, all in one round trip.

    The state is read first: when it is terminal, nothing comes after these pieces, unless there are
    CHUNK of them. Raises BrokerUnavailable.
    """
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        for dispatch_id, place in after.items():
            pipe.hget(keys.dispatch(dispatch_id), "state")
            pipe.xrange(keys.speech(dispatch_id), min=f"({place}", count=CHUNK)
        answers: list[Any] = pipe.execute()
    found = zip(after, answers[::2], answers[1::2], strict=True)
    return {
        dispatch_id: Message(state=state, pieces=[_piece(name, raw) for name, raw in rows])
        for dispatch_id, state, rows in found
    }


def _piece(entry_id: str, raw: Mapping[str, str]) -> Chunk:
    attempt, _, said = entry_id.partition("-")
    return Chunk(
        place=TextPosition(int(attempt), int(said)),
        before=int(raw["from"]),
        kind=Kind(raw["kind"]),
        step=int(raw["step"]),
        offset=int(raw["offset"]),
        text=raw["text"],
    )
