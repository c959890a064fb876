"""An event by Celery is accepted once, and its producer is told so, whatever befalls the broker."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from celery import Celery
from celery.result import AsyncResult

from fleet.intake.spool.spool import Spool
from fleet.store import keys
from fleet.store.wakeup import INTAKE_TASK
from routing import Event, Plan
from tests.fixtures.fleet import CELERY, READY, START_S, Fleet, fleet_of
from tests.fixtures.processes import no_leftovers, wait_until
from tests.fixtures.valkey import Valkey

__all__ = ["no_leftovers"]

#: When Celery's own attempts to store the answer are over.
GIVEN_UP = "cannot be stored"
#: More than run before the event keeps the worker busy.
TICKS = 4
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
        self._target, self._words, self._cut = server.port, words, cut
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open = [self._listening]
        #: Database 0.
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"

    def __enter__(self) -> "Door":
        threading.Thread(target=self._serve).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=ends).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(65_536):
                if self._words and self._words in chunk:
                    self._words = b""
                    self._cut()
                    break
                sink.sendall(chunk)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


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


def test_repairs_go_on_while_an_event_waits_for_the_spool(
    no_leftovers: str, tmp_path: Path
) -> None:
    """One process serves both, and such an event keeps it busy for seconds, again and again."""
    agents, sections = {"a": dict[str, Any]()}, {"spool": {"direct": True}}
    data_dir = tmp_path / "data"
    with fleet_of(tmp_path, agents, sections=sections, data_dir=str(data_dir)) as fleet:
        spool = Spool(fleet.settings)
        spool.prepare()
        spooled = Event.parse(EVENT, new_id="in the spool", now="2026-01-01T00:00:00Z")
        spool.store([(spooled, Plan(agents=("a",), reason="to: a"))])
        fleet.shared().wait_said(READY)
        fleet.start("beat", str(CELERY), "-A", "fleet", "beat", "--pidfile=")
        with producer(fleet.server.url) as app:
            send(app)
            ticks: set[bytes | str | None] = set()

            def repaired() -> bool:
                ticks.add(fleet.books.store.client.hget(keys.BEAT, "reclaim"))
                return len(ticks - {None}) > TICKS

            wait_until(repaired, START_S)
