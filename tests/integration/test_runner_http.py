"""A service as an agent, in a real worker, answering well and badly."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from fleet.formats import webhook_signature
from fleet.store import keys
from tests.fixtures.fleet import Fleet, fleet_of

SECRET = "a secret that is long enough"


@dataclass
class Service:
    """Does what the event's text says, and keeps what it was sent."""

    url: str = ""
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.seen[-1][1])
        return found


class Handler(BaseHTTPRequestHandler):
    service: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.service.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
        what, _, rest = json.loads(body)["data"]["text"].partition(" ")
        if what == "status":
            code, _, after = rest.partition(" ")
            self.answer(int(code), "text/plain", b"no", after)
        elif what == "json":
            self.answer(200, "application/json", rest.encode())
        elif what == "flood":
            self.answer(200, "text/plain", b"x" * 300_000)
        elif what == "hang":
            time.sleep(5)
        elif what == "drip":
            self.drip()
        else:
            self.answer(200, "text/plain; charset=utf-8", f"heard {rest}".encode())

    def answer(self, code: int, kind: str, body: bytes, after: str = "") -> None:
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if after:
            self.send_header("retry-after", after)
        if code in (301, 302):
            self.send_header("location", self.service.url)
        self.end_headers()
        self.wfile.write(body)

    def drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(50):
            self.wfile.write(b".")
            self.wfile.flush()
            time.sleep(0.1)

    def handle(self) -> None:
        with suppress(ConnectionError):  # a turn that has ended hangs up
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    found = Handler.service = Service()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}/agent"
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Iterator[Fleet]:
    agents = {
        "shop": {
            "runner": "http",
            "url": service.url,
            "secret": SECRET,
            "headers": {"x-key": "k"},
            "timeout_s": 2,
            "max_output_bytes": 100_000,
        }
    }
    with fleet_of(tmp_path_factory.mktemp("fleet"), agents) as fleet:
        fleet.ready("shop")
        yield fleet


def answer(fleet: Fleet, text: str) -> str:
    dispatch_id = fleet.send("shop", text)
    fleet.wait_state(dispatch_id, "completed")
    return str(fleet.books.store.client.get(keys.outcome(dispatch_id)))


def failure(fleet: Fleet, text: str) -> dict[str, str]:
    return fleet.wait_state(fleet.send("shop", text), "dead")


def test_the_reply_is_the_answer(fleet: Fleet) -> None:
    assert answer(fleet, "say good morning ✓") == "heard good morning ✓"
    assert answer(fleet, 'json {"text": "a word", "more": 1}') == "a word"
    assert answer(fleet, 'json {"other": 1}') == '{"other": 1}'
    assert answer(fleet, 'json "bare"') == "bare"


def test_the_event_is_whole_and_signed(fleet: Fleet, service: Service) -> None:
    dispatch_id = fleet.send("shop", "say it", session="s1")
    fleet.wait_state(dispatch_id, "completed")
    headers, body = service.seen[-1]
    assert webhook_signature.verify(SECRET, headers, body) == dispatch_id
    assert headers["x-key"] == "k"
    assert headers["content-type"] == "application/cloudevents+json"
    assert (headers["fleet-attempt"], headers["idempotency-key"]) == ("1", dispatch_id)
    event = service.event()
    assert event["specversion"] == "1.0"
    assert (event["data"]["text"], event["data"]["session"]) == ("say it", "s1")


@pytest.mark.parametrize(
    ("text", "reason", "retryable"),
    [
        ("status 400", "the service answered 400", "0"),
        ("status 302", "the service answered 302", "0"),
        ("status 500", "the service answered 500", "1"),
        ("status 429 7", "the service answered 429", "1"),
        ("json {half", "the service's answer is not JSON although its content-type says so", "1"),
        ("flood", "the service answered more than 100000 bytes (max_output_bytes)", "0"),
    ],
)
def test_a_bad_answer_is_a_failure_with_a_reason(
    fleet: Fleet, text: str, reason: str, retryable: str
) -> None:
    record = failure(fleet, text)
    assert (record["stage"], record["error"]) == ("tool", reason)
    assert record["retryable"] == retryable
    said = {"json": "{half", "status": "no"}.get(text.split()[0], "")
    assert fleet.last_words(record["id"]) == said


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_a_service_that_does_not_end_is_left_at_the_limit(fleet: Fleet, how: str) -> None:
    record = failure(fleet, how)
    assert record["stage"] in ("timeout", "tool")
    assert float(record["elapsed_ms"]) < 15_000
    assert answer(fleet, "say still there") == "heard still there"
