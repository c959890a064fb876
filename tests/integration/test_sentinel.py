"""Broker and store behind Sentinel: the primary goes under load, and another takes its place."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from fleet.config.settings import parse
from fleet.errors import BrokerUnavailable, ConfigError
from fleet.ledger.maintenance import record_tick
from fleet.store import open_store
from fleet.store.address import broker_url, sentinel_options
from tests.fixtures.fleet import Fleet
from tests.fixtures.processes import wait_until
from tests.fixtures.sentinels import Sentinels

AGENTS = {"runner": "python", "python": "a:b"}


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    made = Sentinels(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def fleet(sentinels: Sentinels, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, cast("Any", sentinels), {"a": {}, "b": {}}, lease_ttl_s=15)
    yield fleet
    fleet.close()


class Sender(threading.Thread):
    """Sends until it is told to stop; what was not accepted is sent again, under its id."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(daemon=True)
        self._fleet = fleet
        self.ended = threading.Event()
        self.accepted: dict[str, str] = {}
        self.refused = 0

    def run(self) -> None:
        number = 0
        while not self.ended.is_set():
            agent = "ab"[number % 2]
            try:
                self.accepted[str(number)] = self._fleet.send(agent, "say it", id=str(number))
            except BrokerUnavailable:
                self.refused += 1
            else:
                number += 1
            self.ended.wait(0.02)


def left(fleet: Fleet, sender: Sender) -> list[Any]:
    """The records of all accepted that have not completed, after a tick of beat."""
    try:
        fleet.books.reclaim()
        records = [fleet.books.record(one) for one in sender.accepted.values()]
    except BrokerUnavailable as error:
        return [error]
    return [record for record in records if record["state"] != "completed"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_failover_under_load_loses_nothing(fleet: Fleet, sentinels: Sentinels, how: str) -> None:
    fleet.ready("a", "b")
    sender = Sender(fleet)
    sender.start()
    wait_until(lambda: len(sender.accepted) > 20)
    old = sentinels.servers[0]
    if how == "killed":
        old.kill()
    else:
        old.pause()
    sentinels.await_another(old)
    before = len(sender.accepted)
    wait_until(lambda: len(sender.accepted) > before + 20, 60)
    old.resume()
    sender.ended.set()
    sender.join(30)
    with suppress(AssertionError):
        wait_until(lambda: not left(fleet, sender), 90)
    assert left(fleet, sender) == []
    runs = [entry["dispatch_id"] for entry in fleet.diary("start")]
    assert set(runs) == set(sender.accepted.values())
    fences = [fleet.books.record(one)["turn_fence"] for one in sender.accepted.values()]
    assert len(set(fences)) == len(fences)
    online = [(e.fields["agent"], e.fields["fence"]) for e in fleet.books.bus("agent_online")]
    assert len(set(online)) == len(online)
    assert not [e for e in fleet.books.bus("alert") if e.fields["name"] == "token_repeated"]


def test_without_its_replicas_the_server_goes_on_alone(sentinels: Sentinels) -> None:
    store = open_store(sentinels.url)
    for server in sentinels.servers[1:]:
        server.pause()
    for n in range(20):
        record_tick(store, str(n))
    store.close()


def test_an_address_is_one_setting(sentinels: Sentinels) -> None:
    settings = parse({"fleet": {"broker_url": sentinels.url}, "agents": {"a": AGENTS}})
    assert broker_url(settings).count("sentinel://") == 3
    assert sentinel_options(settings.broker_url) == {"master_name": "fleet"}
    store = open_store(sentinels.url)
    assert store.client.ping()
    store.close()


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("sentinel://h:1;sentinel://h:2/0", "master_name"),
        ("sentinel://h:1;redis://h:2/0?master_name=x", "sentinel://HOST:PORT"),
        ("sentinel://h:1/zero?master_name=x", "DATABASE"),
    ],
)
def test_a_wrong_address_is_refused(url: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=r"fleet\.broker_url") as refused:
        parse({"fleet": {"broker_url": url}, "agents": {"a": AGENTS}})
    assert fault in str(refused.value)
