"""The client over HTTP, at servers that are no fleet, or one in trouble."""

import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fleet import (
    ApiUnreachable,
    BrokerRefusal,
    BrokerUnavailable,
    Fleet,
    NotAFleet,
    TokenRefused,
    Unknown,
)
from fleet.client.fleet import ENDED
from fleet.client.sse import ServerSentEvent, parse_stream
from fleet.errors import ConfigError, Forbidden
from fleet.ledger.states import TERMINAL
from fleet.system.backoff import Backoff
from routing.errors import InvalidEvent, UnknownTarget
from tests.fixtures.tls import Authority

ROOT = Path(__file__).resolve().parents[2]
JSON = "application/json"
PROBLEM = "application/problem+json"
ACCEPTED = {"event_id": "e", "dispatches": [], "duplicate": False}

#: Status, media type and body of an answer; None hangs up without one.
Told = tuple[int, str, Any] | None


class Server:
    """Answers what it is told, one answer after the other, and keeps the requests."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: list[Told] = []
        self.requests: list[tuple[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                size = int(self.headers.get("content-length", 0))
                body = self.rfile.read(size)
                outer.requests.append((f"{self.command} {self.path}", json.loads(body or "null")))
                answer = outer.answers.pop(0)
                if answer is None:
                    self.close_connection = True
                    return
                status, media_type, value = answer
                text = value if isinstance(value, str) else json.dumps(value)
                self.send_response(status)
                self.send_header("content-type", media_type)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET  # noqa: N815 - a name of the library

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr("fleet.client.connection._BACKOFF", Backoff(0.0, 0.0))
    running.answers, running.requests = [], []
    return running


def problem(status: int, code: str, detail: str = "No.") -> Told:
    return status, PROBLEM, {"type": f"urn:fleet:problem:{code}", "detail": detail}


@pytest.fixture
def fleet(server: Server) -> Iterator[Fleet]:
    with Fleet(server.url, token="t") as made:
        yield made


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, "text/html", "<p>nothing</p>"), NotAFleet),
        ((200, "text/html", "<p>welcome</p>"), NotAFleet),
        ((301, "text/html", ""), NotAFleet),
        (problem(404, "no-route"), NotAFleet),
        (problem(401, "unauthorized"), TokenRefused),
        (problem(403, "missing-scope"), Forbidden),
        (problem(404, "not-found"), Unknown),
        (problem(404, "unknown-target"), UnknownTarget),
        (problem(400, "invalid-event"), InvalidEvent),
    ],
)
def test_an_answer_that_is_no_success_is_one_error(
    server: Server, fleet: Fleet, answer: Told, error: type[Exception]
) -> None:
    server.answers = [answer]
    with pytest.raises(error) as raised:
        fleet.dispatch("d")
    assert str(raised.value).count(". ") == 0
    assert "\n" not in str(raised.value)


def test_a_call_that_changes_nothing_is_repeated(server: Server, fleet: Fleet) -> None:
    server.answers = [None, (502, "text/html", ""), problem(503, "unavailable"), (200, JSON, {})]
    assert fleet.dispatch("d") == {}
    assert len(server.requests) == 4


def test_an_event_is_sent_again_as_the_same_event(server: Server, fleet: Fleet) -> None:
    server.answers = [None, (202, JSON, ACCEPTED)]
    assert fleet.send("hello").event_id == "e"
    ids = {body["id"] for _, body in server.requests}
    assert (len(server.requests), len(ids)) == (2, 1)


def test_a_call_that_was_perhaps_done_is_not_repeated(server: Server, fleet: Fleet) -> None:
    server.answers = [None, (200, JSON, {})]
    with pytest.raises(ApiUnreachable):
        fleet.retry("d")
    assert len(server.requests) == 1


def test_it_gives_up_in_time(server: Server, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.client.connection.RETRY_S", 0.0)
    server.answers = [problem(503, "unavailable", "The broker is away.")] * 2
    with pytest.raises(BrokerUnavailable, match=r"The broker is away\."):
        fleet.dispatch("d")


def test_pages_that_a_token_sees_in_part_are_put_together(server: Server, fleet: Fleet) -> None:
    server.answers = [
        (200, JSON, {"dispatches": [{"dispatch_id": "a"}], "cursor": "9"}),
        (200, JSON, {"dispatches": [], "cursor": "5"}),
        (200, JSON, {"dispatches": [{"dispatch_id": "b"}], "cursor": "2"}),
    ]
    found, cursor = fleet.dispatches(limit=2, states=["dead"])
    assert ([one["dispatch_id"] for one in found], cursor) == (["a", "b"], "2")
    assert server.requests[2][0] == "GET /dispatches?state=dead&limit=1&cursor=5"


def test_any_id_is_one_part_of_the_path(server: Server, fleet: Fleet) -> None:
    server.answers = [(200, JSON, {})]
    fleet.event("a/../b c?d#é")
    assert server.requests[0][0] == "GET /events/a%2F..%2Fb%20c%3Fd%23%C3%A9"


def test_a_server_without_tls_is_refused(server: Server) -> None:
    with (
        Fleet(server.url.replace("http:", "https:")) as fleet,
        pytest.raises(BrokerRefusal, match=r"No TLS with https:"),
    ):
        fleet.health()


def test_a_certificate_of_an_unknown_authority_is_refused_unless_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    server = Server(context)
    try:
        with Fleet(server.url) as fleet, pytest.raises(BrokerRefusal, match="SSL_CERT_FILE"):
            fleet.health()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        server.answers = [(200, JSON, {"status": "ok"})]
        with Fleet(server.url) as fleet:
            assert fleet.health() == {"status": "ok"}
    finally:
        server.close()


def test_a_proxy_that_cannot_be_used_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "nonsense://x")
    with Fleet(server.url) as fleet, pytest.raises(ConfigError, match="http_proxy"):
        fleet.health()


def test_the_states_of_an_end_are_the_ledgers() -> None:
    assert set(map(str, TERMINAL)) == ENDED


def test_a_stream_is_read_by_its_standard() -> None:
    lines = [
        "retry: 5",
        ": after x.1-0",
        "",
        "id: 1",
        "event: a",
        "data: b",
        "data:c",
        "",
        "data: d",
    ]
    assert [*parse_stream(lines)] == [
        ServerSentEvent("", "after x.1-0", ""),
        ServerSentEvent("a", "b\nc", "1"),
    ]


def test_it_is_light_to_import() -> None:
    program = "import sys; from fleet import Fleet; Fleet('http://x'); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    heavy = {"celery", "kombu", "litellm", "redis", "pydantic", "httpx", "click", "rich"}
    assert done.returncode == 0, done.stderr
    assert not heavy & set(done.stdout.split())
