"""No alert at a start, open and past ones apart, and who knows of one until when."""

import json

import pytest

from fleet.ledger import operations, processes, refusals, starting
from fleet.ops.alerts import silences, watch
from fleet.store import Store, keys
from fleet.store.calls import AlertCall
from tests.fixtures.alerting import Desk, Receiver, names, sending_over


def test_an_agent_that_is_being_started_is_not_away(desk: Desk, receiver: Receiver) -> None:
    store = desk.books.store
    desk.leases[1].release()
    starting.begin(store, ["a", "b"], beat=True)
    # `a` has a worker already, so it is not being started.
    assert starting.names(store) == {"b", starting.BEAT}
    desk.look()
    desk.age("agent_offline:b")
    desk.look()
    assert receiver.seen == []
    # Its worker came, which ends the start; then it left.
    desk.books.held("b").release()
    assert starting.names(store) == {starting.BEAT}
    desk.look()
    assert [message["name"] for message in receiver.seen] == ["agent_offline"]


def test_a_host_that_starts_again_and_again_gains_no_time(store: Store) -> None:
    starting.begin(store, ["a"])
    long_ago = store.clock.now_ms() - int(starting.START_S * 1000)
    store.client.hset(keys.STARTING, "a", int(long_ago))
    starting.begin(store, ["a"])
    assert starting.names(store) == frozenset()


def test_refusals_that_last_are_one_alert_without_what_was_refused(
    desk: Desk, receiver: Receiver
) -> None:
    store = desk.books.store
    refusals.count(store)
    desk.look()
    assert receiver.seen == []
    store.client.hincrby(keys.REFUSING, "since_ms", -60_000)
    refusals.count(store)
    desk.look()
    desk.look()
    assert names(receiver) == [("intake_refused", "open")]
    store.client.hincrby(keys.REFUSING, "last_ms", -60_000)
    desk.look()
    assert names(receiver)[-1] == ("intake_refused", "closed")


def test_a_process_that_keeps_ending_is_open_until_it_stays(desk: Desk, receiver: Receiver) -> None:
    store = desk.books.store
    processes.record_failing(store, "here", {"api": "ended with 1, 4 times in a row"})
    desk.look()
    desk.age("crash_loop::here/api")
    desk.look()
    assert names(receiver) == [("crash_loop", "open")]
    processes.record_failing(store, "here", {})
    desk.look()
    assert names(receiver)[1:] == [("crash_loop", "closed")]
    # Its supervisor has put the beginning on the bus.
    assert desk.said() == [("crash_loop", "closed")]


def test_open_alerts_stand_apart_from_those_that_are_over(desk: Desk, receiver: Receiver) -> None:
    dispatch_id = desk.die()
    desk.books.store.run(AlertCall(name="crash_loop", reason="keeps ending"))
    desk.look()
    (alert,) = desk.alerts()["open"]
    assert (alert["name"], alert["agent"], alert["state"]) == ("dead_letters", "a", "open")
    assert receiver.seen[0]["alert_id"] == alert["id"]
    assert "past" not in desk.alerts()
    operations.replay(desk.books.ledger, desk.settings, dispatch_id)
    desk.look()
    shown = desk.alerts(past=True)
    assert shown["open"] == []
    over, notice = shown["past"]
    assert (over["id"], over["state"], over["since"]) == (alert["id"], "resolved", alert["since"])
    assert over["ended_at"] >= over["since"]
    assert (notice["name"], notice["state"], notice["ended_at"]) == ("crash_loop", "notice", None)


@pytest.mark.parametrize("by_name", [True, False])
def test_a_silenced_alert_is_listed_and_sent_to_nobody(
    desk: Desk, receiver: Receiver, by_name: bool
) -> None:
    store = desk.books.store
    # Unseen by the receiver until its silence ends.
    receiver.status = 500
    desk.die()
    desk.look()
    store.client.delete("fleet:alerts:outbox")
    known = json.loads(str(store.client.hget(keys.ALERTS, "dead_letters:a")))
    store.client.hset(keys.ALERTS, "dead_letters:a", json.dumps({**known, "sent": 0}))
    receiver.status = 200
    which = "dead_letters" if by_name else known["id"][:6]
    silences.silence(store, desk.target(which), for_s=3600, by="ann", comment="known")
    with sending_over(desk):
        desk.look(desk.another())
    assert receiver.seen == []
    (alert,) = desk.alerts()["open"]
    assert (alert["silenced"]["by"], alert["silenced"]["comment"]) == ("ann", "known")
    assert alert["silenced"]["until"] > alert["silenced"]["since"]
    silences.unsilence(store, desk.target(which))
    desk.look(desk.another())
    assert names(receiver) == [("dead_letters", "open")]


def test_a_silence_ends_by_itself(desk: Desk, receiver: Receiver) -> None:
    store = desk.books.store
    silences.silence(store, desk.target("dead_letters"), for_s=3600, by="ann")
    (target,) = store.client.hkeys(keys.ALERTS_SILENCES)
    kept = json.loads(str(store.client.hget(keys.ALERTS_SILENCES, target)))
    kept["until_ms"] = store.clock.now_ms() - 1
    store.client.hset(keys.ALERTS_SILENCES, target, json.dumps(kept))
    desk.die()
    desk.look()
    assert names(receiver) == [("dead_letters", "open")]
    assert desk.alerts()["silences"] == []


def test_the_end_of_what_nobody_was_sent_is_sent_to_nobody(desk: Desk, receiver: Receiver) -> None:
    silences.silence(desk.books.store, desk.target("dead_letters"), for_s=3600, by="ann")
    dispatch_id = desk.die()
    desk.look()
    silences.unsilence(desk.books.store, desk.target("dead_letters"))
    operations.replay(desk.books.ledger, desk.settings, dispatch_id)
    desk.look()
    assert receiver.seen == []
    assert desk.said() == [("dead_letters", "open"), ("dead_letters", "closed")]


def test_an_acknowledged_alert_is_not_sent_again_while_it_grows(
    desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RETRY_DELAY_MS", 0)
    store, first = desk.books.store, desk.die()
    desk.look()
    (alert,) = desk.alerts()["open"]
    target = desk.target(alert["id"])
    silences.acknowledge(store, target, by="ann", comment="on it")
    second = desk.die()
    desk.look()
    assert names(receiver) == [("dead_letters", "open")]
    (alert,) = desk.alerts()["open"]
    assert alert["reason"].startswith("2 dead letters")
    assert (alert["acknowledged"]["by"], alert["acknowledged"]["comment"]) == ("ann", "on it")
    for dispatch_id in (first, second):
        operations.replay(desk.books.ledger, desk.settings, dispatch_id)
    desk.look()
    assert names(receiver)[-1] == ("dead_letters", "closed")
    assert desk.alerts(past=True)["past"][0]["acknowledged"]["by"] == "ann"
    with pytest.raises(operations.NotPossible, match="is over"):
        silences.acknowledge(store, target, by="ann")


def test_a_kind_cannot_be_acknowledged_nor_a_notice_silenced_by_its_id(desk: Desk) -> None:
    with pytest.raises(operations.NotPossible, match="by its id"):
        silences.acknowledge(desk.books.store, desk.target("budget"), by="ann")
    desk.books.store.run(AlertCall(name="crash_loop", reason="keeps ending"))
    desk.look()
    (notice,) = desk.alerts(past=True)["past"]
    with pytest.raises(operations.NotPossible, match="silence its name"):
        silences.silence(desk.books.store, desk.target(notice["id"]), for_s=60, by="ann")


def test_silences_are_bounded_and_one_can_be_made_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silences, "SILENCES_MAX", 1)
    store, memory = desk.books.store, desk.target("memory")
    silences.silence(store, memory, for_s=60, by="ann")
    silences.silence(store, memory, for_s=3600, by="bob")
    assert [one["by"] for one in desk.alerts()["silences"]] == ["bob"]
    with pytest.raises(operations.NotPossible, match="unsilence"):
        silences.silence(store, desk.target("budget"), for_s=60, by="ann")
    silences.unsilence(store, memory)
    with pytest.raises(operations.Unknown, match="no silence of its own"):
        silences.unsilence(store, memory)
