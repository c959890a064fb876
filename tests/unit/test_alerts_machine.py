"""Alerts of one machine without the store: each once, whichever of its processes lives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.config.settings import Settings, parse
from fleet.errors import FleetError
from fleet.ops.alerts import silences
from fleet.ops.alerts.listing import Alerts, of_machine
from fleet.ops.alerts.machine import RETRY_DELAY_S, MachineAlerts
from fleet.ops.alerts.message import AlertMessage
from fleet.ops.alerts.sender import AlertSender
from fleet.runtime import Runtime
from fleet.store import Store, open_store
from routing import Event, decide

NOW = "2026-01-01T00:00:00Z"


class Receiver(AlertSender):
    """Keeps what it is handed, while it works."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1/")
        self.seen: list[tuple[str, str]] = []
        self.reasons: list[str] = []
        self.works = True

    def send(self, message: AlertMessage) -> bool:
        if self.works:
            self.seen.append((message.name, message.state))
            self.reasons.append(message.reason)
        return self.works


class Site:
    """A data folder, with processes that tell, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: Settings = parse(
            {
                "agents": {"a": {"runner": "python", "python": "x:y"}},
                "fleet": {"data_dir": str(folder)},
                "spool": {"max_events": 10},
                "breaker": {"failure_threshold": 1},
            }
        )
        self.now = 1000.0
        self.receiver = Receiver()
        self.runtime = Runtime(self.settings)
        self._machines: list[MachineAlerts] = []

    def machine(self, **more: Any) -> MachineAlerts:
        made = MachineAlerts(self.settings, self.receiver, now=lambda: self.now, **more)
        self._machines.append(made)
        return made

    def spool(self, *numbers: int) -> None:
        for number in numbers:
            event = Event.parse(
                {"to": "a", "text": "x"}, new_id=str(number), now="2026-01-01T00:00:00Z"
            )
            self.runtime.spool.store([(event, decide(event, self.settings.rules()))])

    def look(
        self, machine: MachineAlerts, away: str = "no answer", after_s: float = 60.0
    ) -> list[Any]:
        """A condition that two checks report, `after_s` seconds apart."""
        self.receiver.seen.clear()
        machine.check(None, away)
        self.now += after_s
        machine.check(None, away)
        return list(self.receiver.seen)

    def target(self, name: str) -> silences.AlertTarget:
        """The open alert of a name, as a person means it by its id."""
        found = Alerts.of_machine(self.folder)
        (one,) = (
            row for row in found.to_wire(lambda _: True, past=False)["open"] if row["name"] == name
        )
        return silences.resolve(one["id"], found.targets())

    def document(self) -> dict[str, Any]:
        """The document of `fleet alerts`."""
        return Alerts.of_machine(self.folder).to_wire(lambda _: True, past=False)

    def close(self) -> None:
        for machine in self._machines:
            machine.close()
        self.receiver.close()


@pytest.fixture
def no_store() -> Iterator[Store]:
    """A store that nobody answers for."""
    store = open_store("redis://127.0.0.1:1/0")
    yield store
    store.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "data")
    yield site
    site.close()


def test_an_outage_is_told_when_it_lasts_and_so_is_its_end(site: Site) -> None:
    machine = site.machine()
    assert site.look(machine, after_s=1.0) == []
    site.now += 10
    assert site.look(machine) == [("store_away", "open")]
    assert site.look(machine) == []
    assert site.look(machine, away="") == [("store_away", "closed")]
    assert site.look(machine, away="") == []


def test_a_silenced_one_is_sent_when_the_silence_ends(site: Site) -> None:
    machine = site.machine()
    machine.silenced = frozenset({"store_away"})
    assert site.look(machine) == []
    assert [one.name for one in of_machine(site.folder).values()] == ["store_away"]
    machine.silenced = frozenset()
    assert site.look(machine) == [("store_away", "open")]
    machine.silenced = frozenset({"store_away"})
    assert site.look(machine, away="") == []
    assert of_machine(site.folder) == {}


def test_a_breaker_that_opens_is_told_at_once(site: Site) -> None:
    machine = site.machine()
    site.runtime.breaker.record_failure("TimeoutError")
    machine.check(None)
    assert site.receiver.seen == [("breaker_open", "open")]
    assert "TimeoutError" in site.receiver.reasons[0]


def test_an_acknowledged_alert_is_not_sent_again_while_it_grows(
    site: Site, no_store: Store
) -> None:
    machine = site.machine()
    site.spool(1)
    assert site.look(machine, away="") == [("spool_holds", "open")]
    silences.acknowledge(no_store, site.target("spool_holds"), by="ann", comment="on it")
    (one,) = site.document()["open"]
    assert one["acknowledged"]["by"] == "ann"
    assert one["acknowledged"]["comment"] == "on it"
    site.spool(2, 3)
    assert site.look(machine, away="", after_s=RETRY_DELAY_S) == []


def test_an_alert_is_silenced_without_a_store(site: Site, no_store: Store) -> None:
    machine = site.machine()
    assert site.look(machine) == [("store_away", "open")]
    target = site.target("store_away")
    silences.silence(no_store, target, for_s=3600, by="ann", comment="a restart")
    (silence,) = site.document()["silences"]
    assert (silence["id"], silence["by"]) == (target.id, "ann")
    assert site.look(machine, away="") == [], "its end is sent to nobody, too"
    assert site.look(machine) == []
    assert site.document()["open"][0]["silenced"]["comment"] == "a restart"
    silences.unsilence(no_store, site.target("store_away"))
    assert site.look(machine) == [("store_away", "open")]


def test_an_acknowledgement_holds_for_one_opening(site: Site, no_store: Store) -> None:
    machine = site.machine()
    site.look(machine)
    silences.acknowledge(no_store, site.target("store_away"), by="ann")
    site.look(machine, away="")
    site.look(machine)
    assert site.document()["open"][0]["acknowledged"] is None


def test_a_folder_that_takes_no_mark_is_one_sentence(site: Site, no_store: Store) -> None:
    site.look(site.machine())
    target = site.target("store_away")
    (site.folder / "alerts-write.lock").mkdir()
    with pytest.raises(FleetError, match=r"alerts\.json cannot be written"):
        silences.acknowledge(no_store, target, by="ann")


def test_a_spool_is_told_as_it_fills(site: Site) -> None:
    machine = site.machine()
    site.spool(1)
    assert site.look(machine, away="") == [("spool_holds", "open")]
    site.spool(2, 3, 4, 5, 6, 7, 8)
    assert site.look(machine, away="", after_s=1) == [("spool_nearly_full", "open")]
    site.spool(9, 10)
    assert site.look(machine, away="", after_s=1) == [("spool_full", "open")]
    site.now += RETRY_DELAY_S
    assert site.look(machine, away="", after_s=1) == [("spool_holds", "open")]
    assert "10 events" in site.receiver.reasons[-1]


def test_what_a_full_disk_refuses_is_told_while_it_lasts(site: Site) -> None:
    machine, spool = site.machine(), site.runtime.spool
    spool.prepare()
    spool.count_refused(3)
    assert site.look(machine, away="") == [("spool_refuses", "open")]
    assert "refused 3 events" in site.receiver.reasons[-1]
    spool.mark_reported(3)
    assert site.look(machine, away="") == [("spool_refuses", "closed")]


def test_what_is_aside_is_told_until_somebody_looked(site: Site) -> None:
    machine, spool = site.machine(), site.runtime.spool
    site.spool(1)
    (digest,), last = spool.first(1)
    spool.quarantine(digest, "no such chain")
    spool.mark_imported(last)
    assert site.look(machine, away="") == [("spool_aside", "open")]
    for path, _ in spool.quarantined():
        path.unlink()
    assert ("spool_aside", "closed") in site.look(machine, away="")


def test_a_spool_that_cannot_be_read_is_told(site: Site) -> None:
    site.spool(1)
    (site.folder / "spool" / "segments").rename(site.folder / "elsewhere")
    (site.folder / "spool" / "segments").touch()
    assert ("spool_unreadable", "open") in site.look(site.machine(), away="")


def test_one_process_tells_and_its_successor_knows_of_it(site: Site) -> None:
    first, second = site.machine(), site.machine()
    assert site.look(first) == [("store_away", "open")]
    assert site.look(second) == []
    first.close()
    assert site.look(second) == []
    assert site.look(second, away="") == [("store_away", "closed")]


def test_what_the_receiver_did_not_take_is_told_later(site: Site) -> None:
    machine = site.machine()
    site.receiver.works = False
    assert site.look(machine) == []
    site.receiver.works = True
    assert site.look(machine) == [("store_away", "open")]


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"a": 1}', b"\xff\x00"])
def test_a_damaged_memory_is_set_aside(
    site: Site, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    site.folder.mkdir()
    (site.folder / "alerts.lock").write_bytes(damage)
    assert site.look(site.machine()) == [("store_away", "open")]
    (kept,) = site.folder.glob("alerts.lock.damaged-*")
    assert kept.read_bytes() == damage
    assert "set aside" in caplog.text


def test_without_a_folder_one_process_tells(site: Site) -> None:
    site.folder.write_text("in the way")
    assert site.look(site.machine()) == []
    told = site.look(site.machine(first=True))
    assert told == [("spool_unreadable", "open"), ("store_away", "open")]
