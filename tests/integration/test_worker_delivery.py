"""Outcomes on their way to a real receiver, by real workers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet.config.deliveries import DeliveryConfig
from fleet.delivery.delivery_worker import DeliveryWorker
from fleet.delivery.webhook import post
from fleet.errors import BrokerUnavailable
from fleet.store import Store
from fleet.store.script import R, ScriptCall
from tests.fixtures.fleet import CELERY, READY, Fleet, Process, fleet_of
from tests.fixtures.processes import wait_until
from tests.fixtures.receiver import SECRET, Receiver, receiving

#: Longer than a loaded machine takes to answer, short enough to wait for.
WINDOW_S = 1.5


@contextmanager
def delivering(
    folder: Path, url: str, served: tuple[str, ...] = ("a",), **more: Any
) -> Iterator[Fleet]:
    target = {
        "webhook": url,
        "secret": SECRET,
        "window_s": WINDOW_S,
        "allow_private": True,
        **more,
    }
    agents = {"a": {"deliver": ["crm"]}, "b": {"deliver": ["to_a"]}}
    sections = {"deliveries.crm": target, "deliveries.to_a": {"agent": "a"}}
    with fleet_of(folder, agents, sections=sections) as fleet:
        fleet.ready(*served)
        beat = (str(CELERY), "-A", "fleet", "beat", "--pidfile=", "-l", "WARNING")
        fleet.start("beat", *beat)
        fleet.shared().wait_said(READY)
        delivery_worker(fleet).wait_said(READY)
        yield fleet


def delivery_worker(fleet: Fleet) -> Process:
    return fleet.start(
        "delivery",
        *(str(CELERY), "-A", "fleet", "worker", "-Q", "delivery", "-P", "threads", "-c", "32"),
        *("-n", "delivery@%h", "-l", "INFO", "--without-mingle", "--without-gossip"),
    )


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with delivering(folder, f"{receiver.url}hook?of=us", ("a", "b")) as fleet:
        yield fleet


def told(fleet: Fleet, dispatch_id: str) -> list[str]:
    """How each of a dispatch's deliveries was verified."""
    return [
        entry.fields["verification"]
        for entry in fleet.books.bus("delivery_verified")
        if entry.fields["dispatch_id"] == dispatch_id
    ]


def test_a_receiver_confirms(fleet: Fleet, receiver: Receiver) -> None:
    dispatch_id = fleet.send("a", "say good morning ✓", session="s")
    record = fleet.wait_state(dispatch_id, "completed")
    assert record["verification"] == "ack"
    assert receiver.ids()[-1] == f"{dispatch_id}.1.crm"
    message = receiver.message()
    assert message["type"] == "dispatch_completed"
    assert message["data"]["dispatch_id"] == dispatch_id
    assert message["data"]["answer"] == "you said good morning ✓"
    assert (message["data"]["agent"], message["data"]["state"]) == ("a", "completed")
    assert told(fleet, dispatch_id) == ["ack"]
    assert fleet.books.ends(dispatch_id) == ["dispatch_completed"]


@pytest.mark.parametrize("code", [500, 400, 302])
def test_a_refusal_is_followed_by_another_try(code: int, fleet: Fleet, receiver: Receiver) -> None:
    before = len(receiver.seen)
    receiver.answers[:] = [code]
    dispatch_id = fleet.send("a", "say again")
    record = fleet.wait_state(dispatch_id, "completed")
    assert record["verification"] == "ack"
    assert receiver.ids()[before:] == [f"{dispatch_id}.1.crm"] * 2
    assert receiver.seen[-1][1] == receiver.seen[-2][1], "the same body at each try"
    assert told(fleet, dispatch_id) == ["ack"]


def test_a_bad_end_is_told_too(fleet: Fleet, receiver: Receiver) -> None:
    dispatch_id = fleet.send("a", "fail permanently")
    fleet.wait_state(dispatch_id, "dead")
    wait_until(lambda: told(fleet, dispatch_id) == ["ack"])
    message = receiver.message()
    assert (message["type"], message["data"]["dispatch_id"]) == ("dispatch_dead", dispatch_id)
    assert (message["data"]["stage"], message["data"]["reason"]) == ("tool", "it failed")
    assert "answer" not in message["data"]


def test_a_receiver_that_asks_for_time_gets_it(fleet: Fleet, receiver: Receiver) -> None:
    receiver.answers[:], receiver.retry_after = [503], "2"
    dispatch_id = fleet.send("a", "say later")
    assert fleet.wait_state(dispatch_id, "completed")["verification"] == "ack"
    first, second = (int(headers["webhook-timestamp"]) for headers, _ in receiver.seen[-2:])
    assert second - first >= 2


def test_an_agent_gets_an_answer_and_confirms_it(fleet: Fleet, receiver: Receiver) -> None:
    dispatch_id = fleet.send("b", "repeat say thanks", session="s")
    assert fleet.wait_state(dispatch_id, "completed")["verification"] == "ack"
    wait_until(lambda: bool(receiver.seen))
    wait_until(lambda: receiver.message()["data"].get("answer") == "you said thanks")
    data = receiver.message()["data"]
    assert (data["agent"], data["session"], data["source"]) == ("a", "s", "agent:b")
    assert data["event_id"] == f"{dispatch_id}.1.to_a"


def test_one_that_confirms_too_late_is_unverified_and_not_asked_again(
    fleet: Fleet, receiver: Receiver
) -> None:
    before = len(receiver.seen)
    receiver.answers[:] = [0]
    first = fleet.send("a", "say late")
    wait_until(lambda: len(receiver.seen) > before)
    second = fleet.send("a", "say next")
    fleet.wait_started(second)  # nobody waits for a receiver but its own outcome
    record = fleet.wait_state(first, "completed")
    receiver.go.set()
    assert record["verification"] == "timeout_fallback"
    fleet.wait_state(second, "completed")
    assert [name for name in receiver.ids()[before:] if name.startswith(first)] == [
        f"{first}.1.crm"
    ]
    assert (told(fleet, first), told(fleet, second)) == (["timeout_fallback"], ["ack"])
    receiver.go.clear()


def test_a_sender_killed_before_it_heard_is_followed_by_another(
    fleet: Fleet, receiver: Receiver
) -> None:
    before = len(receiver.seen)
    confirmed = fleet.send("a", "say before")
    fleet.wait_state(confirmed, "completed")
    receiver.answers[:] = [0]
    dispatch_id = fleet.send("a", "say kill")
    wait_until(lambda: len(receiver.seen) == before + 2)
    fleet.processes[-1].kill()
    receiver.go.set()
    assert fleet.books.state(dispatch_id) == "announcing"
    # As if its time were over: a real one is longer than a test.
    client = fleet.books.store.client
    client.hset(f"fleet:delivery:{dispatch_id}", "crm|until_ms", "0")
    client.zadd("fleet:deliveries:crm", {f"{dispatch_id} crm": 0})
    client.zadd("fleet:receivers", {"crm": 0})
    delivery_worker(fleet)
    fleet.wait_state(dispatch_id, "completed", 60)
    names = [f"{confirmed}.1.crm", f"{dispatch_id}.1.crm", f"{dispatch_id}.1.crm"]
    assert receiver.ids()[before:] == names
    assert told(fleet, dispatch_id) == ["ack"]
    receiver.go.clear()


def test_one_that_never_takes_it_ends_unverified(tmp_path: Path) -> None:
    with receiving() as receiver:
        url = receiver.url
    with delivering(tmp_path, url, deadline_s=2) as fleet:
        dispatch_id = fleet.send("a", "say hello")
        record = fleet.wait_state(dispatch_id, "completed", 60)
        assert record["verification"] == "timeout_fallback"
        assert told(fleet, dispatch_id) == ["timeout_fallback"]
        assert int(str(fleet.books.store.client.hget("fleet:target:crm", "failures"))) >= 3


class Watched(Store):
    """Counts the calls that found no server."""

    failures = 0

    def run(self, call: ScriptCall[R]) -> R:
        try:
            return super().run(call)
        except BrokerUnavailable:
            self.failures += 1
            raise


def test_a_store_that_was_away_when_the_receiver_confirmed(tmp_path: Path) -> None:
    """The receiver's confirmation is reported later, and the outcome is not sent again."""
    with (
        receiving() as receiver,
        fleet_of(
            tmp_path,
            {"a": {"deliver": ["crm"]}},
            durable=True,
            sections={
                "deliveries.crm": {
                    "webhook": receiver.url,
                    "secret": SECRET,
                    "window_s": 30,
                    "allow_private": True,
                }
            },
        ) as fleet,
    ):
        books = fleet.books
        dispatch_id = fleet.send("a", "say hello")
        books.complete(books.claimed(books.held("a")))
        receiver.answers[:] = [0]
        store = Watched(books.store.client, 10_000, wakes=True)
        sender = DeliveryWorker(store, fleet.settings, lambda: books.intake)
        sending = threading.Thread(target=sender.deliver, args=(dispatch_id,))
        sending.start()
        wait_until(lambda: bool(receiver.seen))
        fleet.server.kill()
        receiver.go.set()
        wait_until(lambda: store.failures > 0)
        fleet.server.start()
        sending.join(30)
        assert books.record(dispatch_id)["verification"] == "ack"
        sender.deliver(dispatch_id)
        assert receiver.ids() == [f"{dispatch_id}.1.crm"]


def target(url: str, **more: Any) -> DeliveryConfig:
    return DeliveryConfig.model_validate({"webhook": url, "secret": SECRET, "window_s": 1, **more})


def test_a_name_of_this_machine_is_refused_before_anything_is_sent() -> None:
    with receiving() as receiver:
        port = receiver.url.rpartition(":")[2]
        sample = post(target(f"http://127.1:{port}"), b"{}", {})
        assert (sample.kind, receiver.seen) == ("failed", [])
        assert "allow_private" in sample.reason


def test_the_name_is_in_the_header_and_a_redirect_is_not_followed() -> None:
    with receiving() as receiver:
        receiver.answers[:] = [307]
        port = receiver.url.rpartition(":")[2]
        url = f"http://localhost:{port}hook?a=b"
        sample = post(target(url, allow_private=True), b"{}", {"x-more": "1"})
        assert (sample.kind, sample.reason) == ("failed", "HTTP 307")
        ((headers, _),) = receiver.seen
        assert headers["host"] == f"localhost:{port.rstrip('/')}"


def test_an_answer_that_drips_is_no_confirmation() -> None:
    with receiving() as receiver:
        receiver.answers[:] = [-1]
        sample = post(target(receiver.url, allow_private=True), b"{}", {})
        assert (sample.kind, sample.reason) == (
            "unverified",
            "no answer within 1 s (window_s)",
        )


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\nserver: x\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nthree",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nthr",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nthree\r\n",
    ],
)
def test_an_answer_that_is_cut_short_is_no_confirmation(cut: bytes) -> None:
    with receiving() as receiver:
        receiver.answers[:] = [cut]
        sample = post(target(receiver.url, allow_private=True), b"{}", {})
        assert sample.kind == "failed", sample
        assert sample.reason.startswith("its answer failed"), sample


@pytest.mark.parametrize(
    "whole",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nthree",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1_000_000,
    ],
)
def test_a_whole_answer_is_a_confirmation(whole: bytes) -> None:
    with receiving() as receiver:
        receiver.answers[:] = [whole]
        sample = post(target(receiver.url, allow_private=True), b"{}", {})
        assert (sample.kind, sample.reason) == ("ack", f"HTTP {whole[9:12].decode()}")


@pytest.mark.parametrize("early", ["100 Continue", "102 Processing", "103 Early Hints"])
def test_an_answer_may_have_early_ones_before_it(early: str) -> None:
    with receiving() as receiver:
        first = f"HTTP/1.1 {early}\r\nlink: </a>\r\n\r\n".encode()
        receiver.answers[:] = [
            first * 2 + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nthree",
            first,
        ]
        for reason in ("HTTP 200", "its answer failed (IncompleteRead)"):
            assert post(target(receiver.url, allow_private=True), b"{}", {}).reason == reason


def test_a_receiver_that_hangs_delays_no_other_and_is_told_when_it_is_back(tmp_path: Path) -> None:
    with receiving() as hanging, receiving() as quick:
        common = {"secret": SECRET, "window_s": 1, "allow_private": True}
        sections = {
            "deliveries.hanging": {"webhook": hanging.url, **common},
            "deliveries.quick": {"webhook": quick.url, **common},
        }
        # One outcome for both, named so that the hanging one is tried first.
        agents = {"a": {"deliver": ["hanging", "quick"]}}
        hanging.answers[:] = [0] * 1000
        with fleet_of(tmp_path, agents, sections=sections) as fleet:
            fleet.ready("a")
            fleet.start("beat", str(CELERY), "-A", "fleet", "beat", "--pidfile=", "-l", "WARNING")
            fleet.shared().wait_said(READY)
            delivery_worker(fleet).wait_said(READY)
            sent = [fleet.send("a", "say hello") for _ in range(12)]
            wait_until(lambda: len(quick.seen) == len(sent), 60)
            assert [one for one in sent if fleet.books.state(one) == "announcing"]
            hanging.answers.clear()
            hanging.go.set()
            for one in sent:
                fleet.wait_state(one, "completed", 60)
            assert sorted(set(quick.ids())) == sorted(f"{one}.1.quick" for one in sent)
            assert len(hanging.ids()) == len(sent)


def test_a_name_that_nobody_knows() -> None:
    sample = post(target("http://nobody.invalid/"), b"{}", {})
    assert (sample.kind, sample.reason) == ("failed", "its name is not known")
