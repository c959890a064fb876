"""The live text of turns of a fleet elsewhere, for the progress of `fleet send --wait`."""

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fleet.cli.live_text import POLL_INTERVAL_S, RETRY_S, Transcript
from fleet.cli.waiting import Watched
from fleet.client.fleet import Fleet
from fleet.client.sse import ServerSentEvent
from fleet.errors import FleetError
from fleet.turn.live_text import BEGINNING, Chunk, Kind, parse_position

#: Turns that are listened to at once: more texts than fit on a screen.
LISTENED_MAX = 8


class RemoteLiveTexts:
    """Listens in threads while `watched` are waited for. A context manager."""

    def __init__(self, fleet: Fleet, watched: Sequence[Watched]) -> None:
        self._fleet, self._watched = fleet, watched
        self._transcripts: dict[str, Transcript] = {}
        self._over = threading.Event()
        self._places = threading.BoundedSemaphore(LISTENED_MAX)
        self._thread = threading.Thread(target=self._serve, name="live-text", daemon=True)

    def tail(self, dispatch_id: str) -> str:
        """The end of what a dispatch has said; empty when it has said nothing or has ended."""
        transcript = self._transcripts.get(dispatch_id)
        return transcript.tail if transcript else ""

    def __enter__(self) -> "RemoteLiveTexts":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join(POLL_INTERVAL_S)

    def _serve(self) -> None:
        """Listen to each dispatch that runs, in a thread of its own, once there is room."""
        heard: set[str] = set()
        while not self._over.wait(POLL_INTERVAL_S):
            for one in list(self._watched):
                if one.ended or one.dispatch_id in heard:
                    continue
                if not self._places.acquire(blocking=False):
                    break
                heard.add(one.dispatch_id)
                self._transcripts[one.dispatch_id] = Transcript()
                threading.Thread(
                    target=self._listen, args=(one,), name="live-text", daemon=True
                ).start()

    def _listen(self, one: Watched) -> None:
        transcript, after = self._transcripts[one.dispatch_id], ""
        try:
            while not (one.ended or self._over.is_set()):
                # Whoever waits for the outcome asks the same fleet, and tells.
                with suppress(FleetError), self._fleet.listen(one.dispatch_id, after) as stream:
                    for came in stream:
                        after = came.id or after
                        if came.name == "outcome":
                            return
                        take(transcript, came)
                        if self._over.is_set():
                            return
                self._over.wait(RETRY_S)
        finally:
            self._places.release()


def take(transcript: Transcript, came: ServerSentEvent) -> None:
    """Take in one event of a live text; any other is passed over."""
    if came.name == "resync":
        transcript.clear()
    if came.name not in ("token", "reset"):
        return
    data = json.loads(came.data)
    step = int(data["step"])
    text = str(data.get("text", ""))
    kind = Kind.TEXT if came.name == "token" else Kind(data["reason"])
    place = parse_position(came.id) or BEGINNING
    offset = int(data.get("offset", 0))
    transcript.take([Chunk(place=place, before=0, kind=kind, step=step, offset=offset, text=text)])
