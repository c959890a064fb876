"""The live text of running turns, for the progress of `fleet send --wait` on a terminal."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from fleet.cli.waiting import Watched
from fleet.errors import FleetError
from fleet.store import Store
from fleet.turn import live_text
from fleet.turn.live_text import BEGINNING, Chunk, Kind, TextPosition

POLL_INTERVAL_S = 0.1
#: The same while the broker does not answer; what is waited for says so.
RETRY_S = 1.0
#: The end of a text that is shown while it grows.
SHOWN_CHARS = 400


class Transcript:
    """The text of one dispatch as far as it was read."""

    def __init__(self) -> None:
        self.place: TextPosition = BEGINNING
        self._steps: dict[int, str] = {}

    @property
    def tail(self) -> str:
        """The end of what the newest step says."""
        return self._steps[max(self._steps)][-SHOWN_CHARS:] if self._steps else ""

    def take(self, pieces: Sequence[Chunk]) -> None:
        """Take in what was said; what is void disappears."""
        for piece in pieces:
            if piece.kind is Kind.TEXT:
                text = self._steps.get(piece.step, "") + piece.text
                self._steps[piece.step] = text[-SHOWN_CHARS:]
            else:
                self._steps = {n: text for n, text in self._steps.items() if n < piece.step}
            self.place = piece.place

    def clear(self) -> None:
        """Forget everything: what is still kept comes again."""
        self._steps = {}


class LiveTexts:
    """Listens in a thread of its own while `watched` are waited for. A context manager."""

    def __init__(self, connect: Callable[[], Store], watched: Sequence[Watched]) -> None:
        self._connect = connect
        self._watched = watched
        self._transcripts: dict[str, Transcript] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="live-text", daemon=True)

    def tail(self, dispatch_id: str) -> str:
        """The end of what a dispatch has said; empty when it has said nothing or has ended."""
        transcript = self._transcripts.get(dispatch_id)
        return transcript.tail if transcript else ""

    def __enter__(self) -> "LiveTexts":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join(POLL_INTERVAL_S)

    def _listen(self) -> None:
        store: Store | None = None
        pause_s = POLL_INTERVAL_S
        while not self._over.wait(pause_s):
            waited = [one.dispatch_id for one in list(self._watched) if not one.ended]
            try:
                store = store or self._connect()
                places = {id_: self._transcripts.setdefault(id_, Transcript()) for id_ in waited}
                after = {id_: transcript.place for id_, transcript in places.items()}
                for id_, message in live_text.subscribe(store, after).items():
                    places[id_].take(message.pieces)
                pause_s = POLL_INTERVAL_S
            except FleetError:
                # Whoever waits for the outcome asks the same broker, and tells.
                store, pause_s = None, RETRY_S
        if store is not None:
            store.close()
