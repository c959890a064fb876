"""Script calls on a connection of one's own: broken ones, lost scripts, forks, threads, limits."""

import gc
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest
from redis.connection import DefaultParser
from redis.exceptions import NoScriptError

from fleet.errors import BrokerUnavailable
from fleet.ledger import bus
from fleet.store import Store, open_store
from fleet.store.calls import AlertCall
from fleet.store.connection import READ_CONNECTIONS_MAX, reachable
from fleet.store.wire import CONNECTIONS_MAX, Script, Wire
from tests.fixtures.valkey import Valkey

ECHO = Script("return {KEYS[1] or 'none', ARGV[1], ARGV[2]}", "first")
#: Threads at the same time: several times the connections of a client.
CROWD = 300
SLOW = Script("for i = 1, ARGV[1] do end return 'late'")


@pytest.fixture
def wire(store: Store) -> Iterator[Wire]:
    wire = Wire(store.client)
    yield wire
    wire.close()


def test_answers_come_in_the_order_of_the_calls(wire: Wire) -> None:
    calls = [[n] for n in range(35)]
    assert wire.call(ECHO, calls) == [["none", "first", str(n)] for n in range(35)]


@pytest.mark.parametrize("text", ["", "zwölf", "a\r\n$1\r\nb", "x" * 100_000])
def test_any_text_arrives_as_it_is(wire: Wire, text: str) -> None:
    assert wire.call(ECHO, [[text]]) == [["none", "first", text]]


def test_an_argument_is_written_as_its_text(wire: Wire) -> None:
    # Half a character, as a model may answer, is no error.
    for given, arrives in ("a\ud800b", "a?b"), (True, "True"), (1e20, "1e+20"), (b"\x00", "\x00"):
        assert wire.call(ECHO, [[given]]) == [["none", "first", arrives]]


def test_scripts_the_server_has_forgotten_are_loaded_again(wire: Wire, store: Store) -> None:
    wire.call(ECHO, [["x"]])
    store.client.script_flush()
    assert wire.call(ECHO, [["y"], ["z"]]) == [["none", "first", "y"], ["none", "first", "z"]]


def test_a_connection_the_server_closed_is_opened_again(wire: Wire, store: Store) -> None:
    wire.call(ECHO, [["x"]])
    for client in store.client.client_list(_type="normal"):
        if client["cmd"] == "evalsha":
            store.client.client_kill_filter(_id=client["id"])
    assert wire.call(ECHO, [["y"]]) == [["none", "first", "y"]]


def test_answers_are_read_by_the_parser_in_c(wire: Wire, store: Store) -> None:
    assert DefaultParser.__name__ == "_HiredisParser"
    # The errors that decide what happens next are the same classes as the parser in Python makes.
    connection = store.client.connection_pool.get_connection()
    connection.send_command("EVALSHA", "0" * 40, 0)
    with pytest.raises(NoScriptError):
        connection.read_response()
    # As an item of an answer it is a value; `Wire` looks at each.
    for command in ("MULTI",), ("EVALSHA", "0" * 40, 0), ("PING",), ("EXEC",):
        connection.send_command(*command)
    first, *_, done = [connection.read_response() for _ in range(4)]
    assert (first, type(done[0]), done[1]) == ("OK", NoScriptError, "PONG")
    store.client.connection_pool.release(connection)


def test_a_call_that_fails_leaves_the_connection_in_step(wire: Wire) -> None:
    broken = Script("return redis.error_reply('ERR no')")
    with pytest.raises(Exception, match="no"):
        wire.call(broken, [[], [], []])
    assert wire.call(ECHO, [["x"]]) == [["none", "first", "x"]]


def test_a_limit_between_call_and_answer_spoils_no_later_answer(wire: Wire) -> None:
    class Limit(BaseException):
        """As a time limit: from a signal, anywhere."""

    def strike(_number: int, _frame: FrameType | None) -> None:
        raise Limit

    wire.call(SLOW, [[1]])
    before = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(Limit):
            wire.call(SLOW, [[50_000_000]])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert wire.call(ECHO, [["next"]]) == [["none", "first", "next"]]


def test_threads_and_forks_do_not_read_each_others_answers(wire: Wire) -> None:
    def own(name: str) -> bool:
        return all(wire.call(ECHO, [[f"{name}{n}"]])[0][2] == f"{name}{n}" for n in range(300))

    wire.call(ECHO, [["before the fork"]])
    child = os.fork()
    if child == 0:
        os._exit(0 if own("child") else 1)
    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(own, ("one", "two", "three")))
    assert own("main")
    assert os.waitpid(child, 0)[1] == 0


def test_many_more_threads_than_connections_take_turns(store: Store) -> None:
    """Calls and reads alike, all at the same moment."""
    start = threading.Barrier(CROWD)

    def both(number: int) -> bool:
        start.wait(60)
        seconds, _micros = store.client.time()
        return bool(store.run(AlertCall(name=f"name-{number}", reason="y"))) and seconds > 0

    with ThreadPoolExecutor(CROWD) as threads:
        assert all(threads.map(both, range(CROWD)))
    # This client's own, those of reads, and the session's few others.
    assert len(store.client.client_list()) < CONNECTIONS_MAX + READ_CONNECTIONS_MAX + 20


def test_a_call_does_not_wait_for_ever_for_a_connection(store: Store) -> None:
    wire = Wire(store.client, connections_max=1, patience_s=0.2)
    held = wire._take()
    with pytest.raises(BrokerUnavailable, match="all 1 connections"), reachable():
        wire.call(ECHO, [["x"]])
    held.disconnect()


def test_a_call_that_waits_goes_on_as_soon_as_another_ends(store: Store) -> None:
    wire = Wire(store.client, connections_max=1, patience_s=30)
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(wire.call, SLOW, [[20_000_000]])
        quick = threads.submit(wire.call, ECHO, [["x"]])
        assert quick.result(30) == [["none", "first", "x"]]
        assert slow.result(30) == ["late"]
    wire.close()


def test_connections_a_limit_has_lost_are_not_counted_for_ever(store: Store) -> None:
    wire = Wire(store.client, connections_max=1)
    lost = wire._take()
    del lost
    gc.collect()
    assert wire.call(ECHO, [["x"]]) == [["none", "first", "x"]]
    wire.close()


def test_a_fork_in_a_crowd_may_call_too(store: Store) -> None:
    """Its parent's threads hold every connection, and are not there to give one back."""
    wire = Wire(store.client, connections_max=1, patience_s=5)
    held = wire._take()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if wire.call(ECHO, [["child"]])[0][2] == "child" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    held.disconnect()


def test_a_server_that_dies_is_one_sentence_until_it_is_back(tmp_path: Path) -> None:
    server = Valkey(tmp_path).start()
    store = open_store(server.url)
    try:
        store.run(AlertCall(name="x", reason="y"))
        server.kill()
        with pytest.raises(BrokerUnavailable, match="does not answer"):
            store.run(AlertCall(name="x", reason="y"))
        server.start()
        assert store.run(AlertCall(name="x", reason="y"))
    finally:
        store.close()
        server.kill()


def test_the_next_call_is_made_while_the_server_runs_the_last(store: Store) -> None:
    def calls() -> Iterator[AlertCall]:
        yield AlertCall(name="first", reason="none")
        # The first is on its way: without this it would never be answered.
        store.client.client_unpause()
        yield AlertCall(name="second", reason="none")

    store.run(AlertCall(name="before", reason="none"))
    store.client.client_pause(60_000, all=False)
    assert len(store.run_each(calls())) == 2
    assert [entry.fields["name"] for entry in bus.read(store, "0-0")] == [
        "before",
        "first",
        "second",
    ]


def test_a_call_that_is_refused_runs_before_the_next_one(store: Store) -> None:
    def calls() -> Iterator[AlertCall]:
        for number in range(10):
            if number % 2:
                store.client.script_flush()
            yield AlertCall(name=f"{number}", reason="none")

    store.clock.settle()
    store.run_each(calls())
    assert [entry.fields["name"] for entry in bus.read(store, "0-0")] == list("0123456789")


def test_none_is_left_out_after_a_connection_that_the_server_closed(store: Store) -> None:
    def calls() -> Iterator[AlertCall]:
        for number in range(6):
            yield AlertCall(name=f"{number}", reason="none")
            disconnect(store)

    def disconnect(store: Store) -> None:
        for client in store.client.client_list(_type="normal"):
            if client["cmd"] == "evalsha":
                store.client.client_kill_filter(_id=client["id"])

    store.clock.settle()
    store.run_each(calls())
    names = [entry.fields["name"] for entry in bus.read(store, "0-0")]
    assert sorted(set(names)) == list("012345")
    assert names == sorted(names)
