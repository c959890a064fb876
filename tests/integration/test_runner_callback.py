"""A service that answers later, by a signed call: at any time, and after any death."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from fleet.auth import tokens
from fleet.formats import webhook_signature
from fleet.ledger import operations
from fleet.store import keys
from fleet.system.api_address import read_address
from tests.fixtures.fleet import Fleet, Process, fleet_of
from tests.fixtures.processes import wait_until

SECRET = "a secret that is long enough"


@dataclass
class Service:
    """Replies 202 to everything, and keeps what it was sent."""

    url: str = ""
    posts: list[dict[str, Any]] = field(default_factory=list)
    #: Called with the event before the reply is sent.
    first: Callable[[dict[str, Any]], Any] = lambda _event: None

    def posted(self, dispatch_id: str) -> list[dict[str, Any]]:
        """The events that were posted for a dispatch."""
        return [one for one in self.posts if one["fleetcallback"].endswith(dispatch_id)]

    def wait_posted(self, dispatch_id: str, times: int = 1) -> None:
        wait_until(lambda: len(self.posted(dispatch_id)) >= times)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            webhook_signature.verify(SECRET, {k.lower(): v for k, v in self.headers.items()}, body)
            event = json.loads(body)
            service.posts.append(event)
            service.first(event)
            self.send_response(202)
            self.send_header("content-type", "application/json")  # and there is none
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    service.url = f"http://127.0.0.1:{server.server_port}/"
    yield service
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Iterator[Fleet]:
    shop = {
        "runner": "http",
        "url": service.url,
        "secret": SECRET,
        "callback": True,
        "timeout_s": 60,
        "max_output_bytes": 1000,
    }
    short = {**shop, "timeout_s": 1.5, "retry": {"attempts": 3, "backoff_s": 0, "min_age_s": 0}}
    folder = tmp_path_factory.mktemp("fleet")
    sections = {"api": {"port": 0}}
    agents = {"shop": shop, "short": short, "plain": {}}
    with fleet_of(
        folder, agents, sections=sections, durable=True, data_dir=str(folder / "data")
    ) as fleet:
        # From now on every request needs a token; a callback has its signature instead.
        tokens.create(fleet.books.store, "somebody", ["admin"])
        fleet.start("api", sys.executable, "-m", "fleet", "api")
        wait_until(lambda: read_address(fleet.settings.data_dir) is not None)
        fleet.ready("shop", "short")
        yield fleet


#: With neither a text nor an error.
NO_ANSWERS = ["{}", '{"status": "done"}', '{"text": 7}', '{"error": {}}', "[]", "null", "7"]


def call(
    fleet: Fleet,
    dispatch_id: str,
    body: str | bytes = '{"text": "later"}',
    *,
    kind: str = "application/json",
    secret: str = SECRET,
    message_id: str = "",
    now: datetime | None = None,
) -> httpx.Response:
    """Call back, as a service does."""
    base = read_address(fleet.settings.data_dir)
    content = body.encode() if isinstance(body, str) else body
    signed = webhook_signature.headers(
        secret, message_id or f"callback-{dispatch_id}", content, now
    )
    return httpx.post(
        f"{base}/callbacks/{dispatch_id}", content=content, headers={"content-type": kind, **signed}
    )


def outcome(fleet: Fleet, dispatch_id: str) -> str:
    fleet.wait_state(dispatch_id, "completed")
    return str(fleet.books.store.client.get(keys.outcome(dispatch_id)))


def worker_of(fleet: Fleet, agent: str) -> Process:
    return next(p for p in fleet.processes[::-1] if p.log.name.startswith(agent) and p.alive)


def test_what_is_called_back_is_the_answer(fleet: Fleet, service: Service) -> None:
    dispatch_id = fleet.send("shop", "do it")
    service.wait_posted(dispatch_id)
    answer = call(fleet, dispatch_id)
    assert (answer.status_code, answer.json()["duplicate"]) == (202, False)
    assert outcome(fleet, dispatch_id) == "later"
    again = call(fleet, dispatch_id)
    assert (again.status_code, again.json()["duplicate"]) == (202, True)
    other = call(fleet, dispatch_id, '{"text": "another"}')
    assert other.status_code == 409
    assert outcome(fleet, dispatch_id) == "later"
    assert fleet.books.ends(dispatch_id) == ["dispatch_completed"]
    assert len(service.posted(dispatch_id)) == 1


def test_one_that_overtakes_the_reply(fleet: Fleet, service: Service) -> None:
    statuses: list[int] = []

    def at_once(event: dict[str, Any]) -> None:
        dispatch_id = event["fleetcallback"].rpartition("/")[2]
        statuses.append(call(fleet, dispatch_id, "plain words ✓", kind="text/plain").status_code)

    service.first = at_once
    try:
        assert outcome(fleet, fleet.send("shop", "at once")) == "plain words ✓"
    finally:
        service.first = lambda _event: None
    assert statuses == [202]


def test_what_is_refused_changes_nothing(fleet: Fleet, service: Service) -> None:
    dispatch_id = fleet.send("shop", "refuse")
    plain = fleet.send("plain", "say it")
    queued = fleet.send("shop", "wait behind it")
    service.wait_posted(dispatch_id)
    old = datetime.now(UTC) - timedelta(minutes=6)
    answers = [
        call(fleet, dispatch_id, secret="another secret, long enough"),
        call(fleet, dispatch_id, now=old),
        call(fleet, dispatch_id, message_id=dispatch_id),  # as the event itself was signed
        call(fleet, dispatch_id, message_id=f"callback-{queued}"),
        call(fleet, dispatch_id, b"\xff", kind="text/plain"),
        call(fleet, dispatch_id, "{half"),
        call(fleet, dispatch_id, '{"text": "a", "text": "b"}'),
        call(fleet, dispatch_id, '{"text": "a", "score": NaN}'),
        *(call(fleet, dispatch_id, body) for body in NO_ANSWERS),
        call(fleet, dispatch_id, " \n", kind="text/plain"),
        call(fleet, dispatch_id, "x" * 1001),
        call(fleet, "00000000-0000-5000-8000-000000000000"),
        call(fleet, plain),
        call(fleet, queued),
    ]
    neither = [422] * (len(NO_ANSWERS) + 1)
    expected = [404, 404, 404, 404, 400, 400, 400, 400, *neither, 413, 404, 404, 409]
    assert [answer.status_code for answer in answers] == expected
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in answers)
    # Who has no secret does not learn which dispatches there are, whatever it sends.
    wrong = "another secret, long enough"
    for body, status in (('{"text": "x"}', 404), ("{half", 404), ("x" * 1001, 413)):
        told = {
            (answer.status_code, answer.text)
            for id_ in (dispatch_id, plain, "00000000-0000-5000-8000-000000000000")
            for answer in (call(fleet, id_, body, secret=wrong),)
        }
        assert [code for code, _ in told] == [status]
    assert fleet.books.state(dispatch_id) == "active"
    assert call(fleet, dispatch_id).status_code == 202
    assert outcome(fleet, dispatch_id) == "later"
    service.wait_posted(queued)
    call(fleet, queued)
    outcome(fleet, queued)


def test_a_failure_that_is_called_back(fleet: Fleet, service: Service) -> None:
    dispatch_id = fleet.send("shop", "fail")
    service.wait_posted(dispatch_id)
    assert call(fleet, dispatch_id, '{"error": "no stock of X"}').status_code == 202
    record = fleet.wait_state(dispatch_id, "dead")
    assert (record["stage"], record["error"]) == ("tool", "the service called back a failure")
    assert fleet.last_words(record["id"]) == "no stock of X"
    # A replay asks anew, and the old failure is no answer to that.
    operations.replay(fleet.books.ledger, fleet.settings, dispatch_id)
    service.wait_posted(dispatch_id, times=2)
    call(fleet, dispatch_id)
    assert outcome(fleet, dispatch_id) == "later"


@pytest.mark.parametrize("at_once", [False, True])
def test_a_turn_that_waits_can_be_cancelled(fleet: Fleet, service: Service, at_once: bool) -> None:
    dispatch_id = fleet.send("shop", f"cancel {at_once}")
    service.wait_posted(dispatch_id)
    operations.cancel(fleet.books.ledger, fleet.settings, dispatch_id, "enough", now=at_once)
    fleet.wait_state(dispatch_id, "cancelled", timeout_s=10)
    answer = call(fleet, dispatch_id)
    assert (answer.status_code, "already cancelled" in answer.text) == (409, True)


def test_what_does_not_come_in_time_is_asked_for_again(fleet: Fleet, service: Service) -> None:
    dispatch_id = fleet.send("short", "forget it")
    record = fleet.wait_state(dispatch_id, "retrying")
    assert (record["stage"], record["error"]) == (
        *("timeout", "the service did not call back within the turn's limit"),
    )
    fleet.books.reclaim()
    service.wait_posted(dispatch_id, times=2)
    record = fleet.wait_state(dispatch_id, "retrying")
    # What comes between two attempts is found by the next, which posts nothing.
    assert call(fleet, dispatch_id).status_code == 202
    fleet.books.reclaim()
    assert outcome(fleet, dispatch_id) == "later"
    assert len(service.posted(dispatch_id)) == 2


@pytest.mark.parametrize("called_early", [False, True])
def test_a_killed_worker_posts_nothing_again(
    fleet: Fleet, service: Service, called_early: bool
) -> None:
    dispatch_id = fleet.send("shop", f"survive {called_early}")
    service.wait_posted(dispatch_id)
    wait_until(lambda: len(fleet.books.ledger.steps(dispatch_id)) == 1)
    worker_of(fleet, "shop").kill()
    if called_early:
        assert call(fleet, dispatch_id).status_code == 202
    fleet.ready("shop")
    if not called_early:
        wait_until(lambda: fleet.books.record(dispatch_id)["attempt"] == "2")
        assert call(fleet, dispatch_id).status_code == 202
    assert outcome(fleet, dispatch_id) == "later"
    assert fleet.books.record(dispatch_id)["attempt"] == "2"
    assert len(service.posted(dispatch_id)) == 1


def test_a_broker_that_is_away_loses_no_answer(fleet: Fleet, service: Service) -> None:
    """The last test: it restarts the store under everybody."""
    dispatch_id = fleet.send("shop", "outlive it")
    service.wait_posted(dispatch_id)
    wait_until(lambda: len(fleet.books.ledger.steps(dispatch_id)) == 1)
    fleet.server.kill()
    answer = call(fleet, dispatch_id)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    fleet.server.start()
    wait_until(lambda: call(fleet, dispatch_id).status_code == 202)
    assert outcome(fleet, dispatch_id) == "later"
    assert len(service.posted(dispatch_id)) == 1
