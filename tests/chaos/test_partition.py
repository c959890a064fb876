"""Two machines for one agent, and the network of the one that holds it fails."""

from collections.abc import Iterator
from typing import Any

import pytest

from fleet.bench._auditor import audit
from fleet.bench._chaos_fleet import read_history
from fleet.bench._chaos_turns import DIARY, read_diary
from fleet.store import keys
from tests.chaos.arena import START_S
from tests.chaos.netns import Machine, machines
from tests.fixtures.fleet import CELERY, Fleet, Process, fleet_of
from tests.fixtures.processes import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

TTL_S = 2.0


class Divided:
    """A fleet whose agent has a worker on each of two machines."""

    def __init__(self, fleet: Fleet, sites: list[Machine]) -> None:
        self.fleet, self.sites = fleet, sites
        self.diary = fleet.folder / "diary.log"
        self.diary.touch()
        self.workers: dict[str, Process] = {}
        self._accepted: set[str] = set()

    def worker(self, site: Machine) -> None:
        """A worker there."""
        self.workers[site.name] = self.fleet.start(
            site.name,
            *(*site.command, str(CELERY), "-A", "fleet", "worker", "-Q", "agent.one", "-c", "1"),
            *("-n", f"one@{site.name}", "-l", "INFO", "--without-mingle", "--without-gossip"),
            FLEET_BROKER_URL=f"redis://{site.here}:{self.fleet.server.port}/0",
            **{DIARY: str(self.diary)},
        )

    def send(self, gate: str) -> str:
        dispatch_id = self.fleet.send("one", gate)
        self._accepted.add(dispatch_id)
        return dispatch_id

    def await_attempt(self, dispatch_id: str, attempt: int) -> None:
        def begun() -> bool:
            marks = read_diary(self.diary)
            return any(m.dispatch_id == dispatch_id and m.attempt == attempt for m in marks)

        wait_until(begun, START_S)

    def violations(self) -> list[str]:
        accepted = frozenset(self._accepted)
        return audit(read_history(self.fleet.books.store, self.diary, accepted, ())).violations


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Divided]:
    options: dict[str, Any] = {"lease_ttl_s": TTL_S}
    agents: dict[str, dict[str, Any]] = {"one": {"python": "tests.chaos.turns:gate"}}
    with (
        machines(2) as sites,
        fleet_of(tmp_path_factory.mktemp("fleet"), agents, **options) as fleet,
    ):
        client = fleet.books.store.client
        client.config_set("protected-mode", "no")
        client.config_set("bind", " ".join(["127.0.0.1", *(site.here for site in sites)]))
        yield Divided(fleet, sites)


@pytest.mark.parametrize("lost", ["both", "answers", "requests"])
def test_the_cut_off_one_stops_before_the_other_begins(divided: Divided, lost: str) -> None:
    holder, other = divided.sites
    divided.worker(holder)
    divided.workers[holder.name].wait_said(" ready.")
    divided.worker(other)
    divided.workers[other.name].wait_said("standing by")
    dispatch_id = divided.send(f"gate-{lost}")
    divided.await_attempt(dispatch_id, 1)
    holder.cut(requests=lost != "answers", answers=lost != "requests")
    divided.await_attempt(dispatch_id, 2)
    divided.fleet.open_gate(f"gate-{lost}")
    record = divided.fleet.wait_state(dispatch_id, "completed")
    assert record["attempt"] == "2"
    assert divided.workers[holder.name].wait() == 70
    holder.heal()
    assert divided.violations() == []
    divided.workers[other.name].kill()
    wait_until(lambda: divided.fleet.books.reclaim()["offline"] == 1)
    assert not divided.fleet.books.store.client.exists(keys.lease("one"))
