"""An event by Celery is accepted once, and its producer is told so, whatever befalls the broker."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from celery import Celery
from celery.result import AsyncResult

from fleet.store.wakeup import INTAKE_TASK
from tests.fixtures.fleet import READY, START_S, Fleet, fleet_of
from tests.fixtures.processes import no_leftovers
from tests.fixtures.valkey import Valkey

__all__ = ["no_leftovers"]

#: When Celery's own attempts to store the answer are over.
GIVEN_UP = "cannot be stored"
EVENT = {"to": "a", "text": "say hello"}


@contextmanager
def producer(url: str) -> Iterator[Celery]:
    """Anybody who installed Celery and not this package."""
    with Celery(broker=url, backend=url, set_as_current=False) as app:
        yield app


def send(app: Celery, **options: Any) -> AsyncResult[Any]:
    return app.send_task(INTAKE_TASK, [EVENT], queue="intake", **options)


def test_a_message_that_comes_twice_is_one_event(no_leftovers: str, tmp_path: Path) -> None:
    """Celery delivers it again when its worker dies before the acknowledgement."""
    with fleet_of(tmp_path, {"a": {}}) as fleet, producer(fleet.server.url) as app:
        fleet.shared().wait_said(READY)
        sent = send(app, task_id="the-message")
        first = sent.get(timeout=START_S)
        sent.forget()
        again = send(app, task_id="the-message").get(timeout=START_S)
        assert again == {**first, "duplicate": True}
        assert first["event_id"] == "the-message"


class Door:
    """A way to a server that calls `cut` once, instead of carrying a request with these bytes."""

    def __init__(self, server: Valkey, words: bytes, cut: Callable[[], None]) -> None:
        self.port = 0
        self._target, self._words, self._cut = server.port, words, cut
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> "Door":
        ready = threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        assert ready.wait(START_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    @property
    def url(self) -> str:
        """Database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _run(self, ready: threading.Event) -> None:
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._pump(reader, forth, self._words), self._pump(back, writer, b""))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: bytes
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65_536):
                if self._words and words and words in chunk:
                    self._words = b""
                    self._cut()
                    break
                writer.write(chunk)
                await writer.drain()
        writer.close()


def test_told_that_it_is_accepted_though_the_broker_went_away(
    no_leftovers: str, tmp_path: Path
) -> None:
    """It goes away in the moment in which the answer is stored."""
    server = Valkey(tmp_path, durable=True).start()
    try:
        with Door(server, b'"status": "SUCCESS"', server.kill) as door:
            fleet = Fleet(tmp_path, server, {"a": {}}, broker_url=door.url)
            try:
                worker = fleet.shared()
                worker.wait_said(READY)
                with producer(server.url) as app:
                    sent = send(app)
                    worker.wait_said(GIVEN_UP)
                    server.start()
                    answer = sent.get(timeout=START_S)
                assert answer["event_id"] == sent.id
                (accepted,) = fleet.books.bus("dispatch_queued")
                assert answer["dispatches"][0]["dispatch_id"] == accepted.fields["dispatch_id"]
            finally:
                fleet.close()
    finally:
        server.kill()
