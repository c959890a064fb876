"""A real API process on a real Valkey, and clients that follow its bus."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet.ledger import LeaseToken
from fleet.store import Store, open_store
from fleet.store.lease_calls import LeaseCall, ReleaseCall
from tests.fixtures.commands import Commands
from tests.fixtures.valkey import Valkey

Json = dict[str, Any]


def take_lease(store: Store, *, ttl_ms: int, agent: str = "gem") -> LeaseToken:
    """Hold an agent's lease as `test:1`."""
    name = uuid.uuid4().hex
    call = LeaseCall(
        agent=agent,
        ttl_ms=ttl_ms,
        holder="test:1",
        client="1",
        run="run",
        lease=name,
        process="",
        stolen="",
    )
    fence, epoch = int(store.run(call)[1]), str(store.run(call)[3])
    return LeaseToken(agent=agent, fence=fence, lease=name, holder="test:1", epoch=epoch)


def release(store: Store, token: LeaseToken) -> None:
    """Give it back."""
    store.run(ReleaseCall(agent=token.agent, fence=token.fence, lease=token.lease))


_LIMITED = 'ulimit -n "${OPEN_FILES:-$(ulimit -n)}"; exec "$0" "$@"'
_SERVE = """
from fleet.api.server import serve
serve(announce=lambda url: print(url, flush=True))
"""
_CONFIG = """
[fleet]
broker_url = "{broker}"
data_dir = "{data_dir}"
[api]
port = 0
[agents]
archie = {{ runner = "python", python = "a:b", max_pending = 100000 }}
gem = {{ runner = "python", python = "a:b", max_pending = 100000 }}
small = {{ runner = "python", python = "a:b", max_pending = 2 }}
[routes]
default = ["archie"]
groups = {{ reviewers = ["archie", "gem"] }}
[chains]
ask = {{ stages = ["human:ops", "archie", "gem"] }}
[bus]
max_length = 100000
"""


class Api:
    """One API process of a fleet that has no worker: what is sent to it stays queued."""

    def __init__(self, folder: Path, broker_url: str, **environment: str) -> None:
        """With `OPEN_FILES` in the environment, the process may open no more."""
        self.data_dir = folder / "data"
        config = folder / "fleet.toml"
        config.write_text(_CONFIG.format(broker=broker_url, data_dir=self.data_dir))
        self.process = subprocess.Popen(
            ["sh", "-c", _LIMITED, sys.executable, "-c", _SERVE],
            env={**os.environ, "FLEET_CONFIG": str(config), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, self.end()
        self.http = httpx.Client(base_url=self.url, timeout=20, trust_env=False)

    def end(self) -> tuple[int, str]:
        """SIGTERM; the exit code, and what it said."""
        self.process.terminate()
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said

    def close(self) -> None:
        """Nothing is left of it."""
        self.http.close()
        if self.process.poll() is None:
            _, said = self.end()
            assert "Traceback" not in said, said

    def send(self, **event: Any) -> httpx.Response:
        """`POST /events` of a shorthand."""
        return self.http.post("/events", json={"text": "hello", **event})

    def send_many(self, count: int, to: str = "archie") -> None:
        """`count` events, which are twice as many bus entries."""
        for start in range(0, count, 500):
            batch = [{"to": to, "text": "hello"}] * min(500, count - start)
            assert self.http.post("/events", json=batch).status_code == 202

    @contextmanager
    def follow(self, cursor: str | None = None, **query: Any) -> Iterator["Follow"]:
        """Follow `GET /bus`; what is sent inside is seen."""
        headers = {} if cursor is None else {"Last-Event-ID": cursor}
        with self.http.stream("GET", "/bus", headers=headers, params=query) as answer:
            assert answer.status_code == 200
            yield Follow(answer)

    def clients(self) -> int:
        """How many follow the bus, as `/health` tells."""
        return int(self.http.get("/health").json()["bus"]["clients"])


#: What the API itself tells, at any time: no worker runs here, and brokers come and go.
ASIDE = ("alert", "breaker_opened", "breaker_closed")


class Follow:
    """The events of one server-sent stream, without `ASIDE`."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.iter_lines()
        self.cursor = ""  #: the last event id, as a browser would keep it

    def next(self) -> Json:
        """The next event; httpx's read timeout bounds the wait."""
        for line in self._lines:
            if line.startswith("id: "):
                self.cursor = line.removeprefix("id: ")
            if line.startswith("data: "):
                event: Json = json.loads(line.removeprefix("data: "))
                if event["type"] not in ASIDE:
                    return event
        raise EOFError("the stream ended")

    def take(self, count: int) -> list[Json]:
        """The next `count` events."""
        return [self.next() for _ in range(count)]

    def until(self, found: Callable[[Json], bool]) -> list[Json]:
        """Events up to the first that is looked for."""
        events = [self.next()]
        while not found(events[-1]):
            events.append(self.next())
        return events


MakeApi = Callable[..., Api]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server of this module's own, whose data nobody else throws away."""
    server = Valkey(tmp_path_factory.mktemp("valkey"), durable=True)
    yield server.start()
    server.kill()


@pytest.fixture(scope="module")
def store(valkey: Valkey) -> Iterator[Store]:
    """A look behind the API."""
    opened = open_store(valkey.url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Api]:
    """One API for the tests of a module."""
    started = Api(tmp_path_factory.mktemp("api"), valkey.url)
    yield started
    started.close()


@pytest.fixture
def make_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeApi]:
    """Further APIs, ended after the test."""
    made: list[Api] = []

    def make(broker_url: str, **environment: str) -> Api:
        made.append(Api(tmp_path_factory.mktemp("api"), broker_url, **environment))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def commands(
    api: Api,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Commands:
    """Commands on the machine of `api`; with `--url` or FLEET_URL they are for another fleet."""
    monkeypatch.setenv("FLEET_CONFIG", str(api.data_dir.parent / "fleet.toml"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("FLEET_TOKEN", "")
    return Commands(monkeypatch, capsys)


#: Without it an event that the broker does not take is kept.
NO_SPOOL = {"FLEET_SPOOL__MAX_EVENTS": "0"}


@contextmanager
def away(valkey: Valkey) -> Iterator[None]:
    """Without a broker; it comes back with its data."""
    valkey.kill()
    try:
        yield
    finally:
        valkey.start()
