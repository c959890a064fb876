"""Told once, told that it is over, never lost on the way, and nobody waits for the receiver."""

import json
from pathlib import Path
from threading import Event as Flag

import pytest

from fleet.config.settings import Settings
from fleet.ledger import operations
from fleet.ops.alerts import listing, sender, silences, watch
from fleet.ops.alerts.machine import MachineAlerts
from fleet.ops.alerts.sender import AlertSender
from fleet.runtime import Runtime
from fleet.store.calls import AlertCall
from fleet.turn.providers import Providers
from routing import Event, decide
from tests.fixtures.alerting import Desk, Receiver, names, sending_over

NOW = "2026-01-01T00:00:00Z"


def test_a_dead_letter_is_told_once_and_so_is_its_end(desk: Desk, receiver: Receiver) -> None:
    dispatch_id = desk.die()
    desk.look()
    desk.look()
    assert names(receiver) == [("dead_letters", "open")]
    assert "no such model" in receiver.seen[0]["reason"]
    operations.replay(desk.books.ledger, desk.settings, dispatch_id)
    desk.look()
    desk.look()
    assert names(receiver) == [("dead_letters", "open"), ("dead_letters", "closed")]
    assert desk.said() == names(receiver)
    assert "private" not in json.dumps(receiver.seen)


def test_two_alerters_tell_it_once(desk: Desk, receiver: Receiver) -> None:
    other = desk.another()
    desk.die()
    desk.look()
    desk.look(other)
    assert len(receiver.seen) == 1


def test_why_the_newest_letter_died_stays_whoever_looks(desk: Desk) -> None:
    desk.die()
    for alerter in (desk.alerter, desk.another(), desk.another()):
        desk.look(alerter)
        (alert,) = desk.alerts()["open"]
        assert alert["reason"].startswith("1 dead letter, the last one for llm: no such model; ")


def test_more_dead_letters_are_told_after_a_while(
    desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.die()
    desk.look()
    desk.die()
    desk.look()
    assert len(receiver.seen) == 1
    monkeypatch.setattr(watch, "RETRY_DELAY_MS", 0)
    desk.look()
    desk.look()
    assert [message["reason"][:14] for message in receiver.seen] == [
        "1 dead letter,",
        "2 dead letters",
    ]


def test_what_passes_before_its_time_is_never_told(desk: Desk, receiver: Receiver) -> None:
    desk.leases[1].release()
    desk.look()
    desk.leases[1] = desk.books.held("b")
    desk.look()
    assert receiver.seen == []
    assert desk.said() == []


def test_an_agent_that_stays_away_is_told(desk: Desk, receiver: Receiver) -> None:
    desk.leases[1].release()
    desk.look()
    desk.age("agent_offline:b")
    desk.look()
    assert [(m["name"], m["agent"]) for m in receiver.seen] == [("agent_offline", "b")]


def test_a_fleet_that_was_stopped_was_not_offline(desk: Desk, receiver: Receiver) -> None:
    desk.leases[1].release()
    desk.look()
    desk.age("agent_offline:b")
    desk.books.store.client.decrby("fleet:alerts:looked", 60_000)
    desk.look()
    desk.look()
    assert receiver.seen == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_receiver_in_trouble_gets_it_later(desk: Desk, receiver: Receiver, status: int) -> None:
    receiver.status = status
    desk.die()
    desk.look()
    assert receiver.seen == []
    receiver.status = 200
    # Its own pause has not passed; another alerter, as after a restart, has none.
    with sending_over(desk):
        desk.look(desk.another())
    assert names(receiver) == [("dead_letters", "open")]


def test_a_refused_message_does_not_hold_up_the_next(desk: Desk, receiver: Receiver) -> None:
    receiver.status = 400
    desk.die()
    desk.look()
    receiver.status = 200
    desk.books.store.run(AlertCall(name="crash_loop", reason="keeps ending"))
    desk.look()
    assert names(receiver) == [("crash_loop", None)]


def test_a_hanging_receiver_costs_one_request_and_loses_nothing(
    desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "SEND_TIMEOUT_S", 0.2)
    hasty = desk.another()
    receiver.hang = Flag()
    desk.die()
    desk.look(hasty)
    assert receiver.seen == []
    assert desk.books.store.client.llen("fleet:alerts:outbox") == 1
    receiver.hang.set()
    with sending_over(desk):
        desk.look(desk.another())
    assert ("dead_letters", "open") in names(receiver)


def test_a_storm_is_cut_short_and_counted(
    desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PER_MINUTE", 3)
    for number in range(8):
        desk.books.store.run(AlertCall(name=f"kind{number}", reason="something"))
    desk.look()
    assert len(receiver.seen) == 3
    desk.books.store.client.delete("fleet:alerts:rate")
    desk.books.store.run(AlertCall(name="later", reason="something"))
    desk.look()
    assert receiver.seen[-1]["suppressed"] == 5
    assert receiver.seen[-1]["text"].endswith("[5 more were not sent]")


def test_a_provider_that_is_left_alone_is_told_and_so_is_its_end(
    desk: Desk, receiver: Receiver
) -> None:
    gate = Providers(lambda: desk.books.store, desk.settings.breaker, "a")
    gate.report("acme/m", "5f00", "denied", "acme/m: AuthenticationError (HTTP 401)")
    desk.look()
    gate.report("acme/m", "5f00", "ok")
    desk.look()
    assert names(receiver) == [("provider_open", "open"), ("provider_open", "closed")]
    assert "`fleet agents resume a`" in receiver.seen[0]["reason"]
    assert "HTTP 401" in receiver.seen[0]["reason"]


def test_a_spool_is_on_the_bus_once_the_store_answers(
    desk: Desk, receiver: Receiver, tmp_path: Path
) -> None:
    hook = desk.settings.alerts.webhook
    assert hook is not None
    fleet = desk.settings.model_copy(update={"data_dir": tmp_path / "data"})
    spool(fleet, 3)
    clock = 1000.0
    machine = MachineAlerts(fleet, AlertSender(hook.get_secret_value()), now=lambda: clock)
    machine.check(None, "no answer")
    clock += 60
    machine.check(None, "no answer")
    away = listing.Alerts.of_machine(fleet.data_dir)
    ids = {target.name: target for target in away.targets().values()}
    silences.acknowledge(desk.books.store, ids["store_away"], by="ann")
    machine.check(desk.books.store)
    machine.check(desk.books.store)
    (over,) = desk.alerts(past=True)["past"]
    assert (over["name"], over["state"], over["reason"]) == ("store_away", "resolved", "no answer")
    assert over["host"]
    assert over["acknowledged"]["by"] == "ann"
    assert names(receiver) == [
        ("store_away", "open"),
        ("spool_holds", "open"),
        ("store_away", "closed"),
    ]
    assert desk.said() == [("spool_holds", "open")]
    assert "private" not in json.dumps(receiver.seen)
    machine.close()


def spool(settings: Settings, events: int) -> None:
    kept = Runtime(settings).spool
    for number in range(events):
        event = Event.parse({"to": "a", "text": f"private {number}"}, new_id=str(number), now=NOW)
        kept.store([(event, decide(event, settings.rules()))])
