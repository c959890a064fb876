"""A sender of events over HTTP for as long as a test wants; it remembers what was promised."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.chaos.arena import Arena

AGENTS = ("a1", "a2")


class Sender:
    """Sends one event after the other, some of them twice, some of one session."""

    def __init__(self, arena: Arena, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self.in_session: list[str] = []  #: ids of its dispatches, as they were accepted
        self._arena = arena
        self._numbers = itertools.count()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.refused: list[int] = []

    @contextmanager
    def sending(self) -> Iterator[None]:
        self._over.clear()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def gate(self) -> dict[str, Any]:
        return dict(self.http.get("/health").json()["g4"])

    def _send(self) -> None:
        while not self._over.wait(0.1):
            number = next(self._numbers)
            event = {"id": f"n{number}", "to": AGENTS[number % 2], "text": "1 0.01"}
            if number % 3 == 0:
                event["session"] = "talk"
            first = self.http.post("/events", json=event)
            if first.status_code != 202:
                self.refused.append(first.status_code)
                continue
            (dispatch_id,) = (one["dispatch_id"] for one in first.json()["dispatches"])
            self._arena.note(dispatch_id)
            if "session" in event:
                self.in_session.append(dispatch_id)
            if number % 5 == 0:
                again = self.http.post("/events", json=event)
                assert again.status_code == 202, again.text
                assert again.json()["dispatches"] == first.json()["dispatches"]
