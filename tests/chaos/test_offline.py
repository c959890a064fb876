"""The broker is away for long, and kept events run meanwhile: each once, whatever else dies."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.bench import _chaos_turns
from fleet.bench._auditor import AuditReport
from fleet.bench._chaos_fleet import children, kill
from fleet.system.api_address import read_address
from tests.chaos.arena import END_S, START_S, Arena, arena_of, pause
from tests.chaos.sender import AGENTS, Sender
from tests.fixtures.processes import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

#: The breaker opens, the workers' leases run out, and the process that runs kept events starts.
BEGIN_S = 40.0


class Outage:
    """A fleet of one machine with its API, and what runs while its broker is away."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.folder = arena.where.folder
        self.start_api()
        self.sender = Sender(arena, self.url)

    @property
    def url(self) -> str:
        wait_until(lambda: read_address(self.folder) is not None, START_S)
        return str(read_address(self.folder))

    def start_api(self) -> None:
        (config,) = self.folder.glob("fleet-*.toml")
        environment = {
            "FLEET_CONFIG": str(config),
            "FLEET_API__PORT": "0",
            "FLEET_BREAKER__RESET_TIMEOUT_S": "2",
            "FLEET_BREAKER__FAILURE_THRESHOLD": "1",
            _chaos_turns.DIARY: str(self.arena.target.diary),
            _chaos_turns.PROVIDER: str(self.arena.wire.provider.port),
        }
        argv = [sys.executable, "-m", "fleet", "api"]
        self.arena.target.processes.start("api", argv, environment)

    def kill_api(self) -> None:
        kill(self.arena.target.pid("api"))
        self.arena.target.processes.running["api"].wait()
        self.folder.joinpath("api.json").unlink()

    def ran_here(self) -> int:
        """The number of turns that ended offline and wait for their import."""
        return int(self.sender.gate().get("direct", {}).get("ended", 0))

    def runs(self, count: int) -> None:
        """Wait until that many more have ended from the spool."""
        before = self.ran_here()
        wait_until(lambda: self.ran_here() >= before + count, BEGIN_S)

    def process(self) -> int:
        """The process that runs kept events; a thread of the API has started it."""
        found: list[int] = []

        def look() -> bool:
            threads = Path(f"/proc/{self.arena.target.pid('api')}/task")
            for told in threads.glob("*/children"):
                found.extend(map(int, told.read_text().split()))
            return bool(found)

        wait_until(look, BEGIN_S)
        return found[0]

    def all_ends(self) -> AuditReport:
        """Wait for every outcome; the auditor's verdict."""
        wait_until(lambda: self.sender.gate()["breaker"] == "closed", END_S)
        wait_until(lambda: self.sender.gate()["spooled"] == 0, END_S)
        wait_until(lambda: self.arena.target.unfinished() == 0, END_S)
        return self.arena.result()


@pytest.fixture(scope="module")
def outage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    os.environ["FLEET_SPOOL__DIRECT"] = "true"
    try:
        folder = tmp_path_factory.mktemp("arena")
        with arena_of(folder, agents=len(AGENTS), ttl_s=2.0) as arena:
            found = Outage(arena)
            yield found
            found.sender.http.close()
    finally:
        del os.environ["FLEET_SPOOL__DIRECT"]


def broken(result: AuditReport) -> list[str]:
    """Violations, but for one that is no promise here: what the ledger may have cannot be asked
    for, so an event without a session may pass an older one.
    """
    return [one for one in result.violations if not one.startswith("reordered")]


def test_what_is_kept_runs_once_while_processes_die(outage: Outage) -> None:
    arena, sender = outage.arena, outage.sender
    with sender.sending():
        wait_until(lambda: len(arena.bus("dispatch_completed")) > 3, START_S)
        kill(arena.where.endpoint.pid, number=signal.SIGSTOP)
        outage.runs(3)
        kill(*children(outage.process()))
        outage.runs(3)
        kill(outage.process())
        outage.runs(3)
        kill(arena.where.endpoint.pid, number=signal.SIGCONT)
        wait_until(lambda: sender.gate()["breaker"] == "closed", END_S)
        pause(0.5)
    result = outage.all_ends()
    assert broken(result) == []
    assert set(result.outcomes) == {"completed"}
    assert sender.refused == []


def test_a_long_turn_is_cut_short_by_the_end_and_goes_on_elsewhere(outage: Outage) -> None:
    """Thirty steps of a second each, a stopping process has five: it cannot end here."""
    arena, sender = outage.arena, outage.sender
    kill(arena.where.endpoint.pid)
    # It fails, and opens the breaker; it may have landed, so it waits.
    opened = sender.http.post("/events", json={"to": "a2", "text": "1 0.01"})
    sent = sender.http.post("/events", json={"to": "a1", "text": "30 1"})
    (dispatch_id,) = (one["dispatch_id"] for one in sent.json()["dispatches"])
    arena.note(dispatch_id, *(one["dispatch_id"] for one in opened.json()["dispatches"]))
    arena.started(dispatch_id, step=3)
    told = sender.http.get(f"/dispatches/{dispatch_id}").json()
    assert (told["state"], told["attempt"]) == ("active", 1)
    arena.where.endpoint = arena.where.broker.start()
    result = outage.all_ends()
    assert broken(result) == []
    assert arena.outcome(dispatch_id)["attempt"] == "2"
    assert result.resumed_steps >= 3


def test_the_api_dies_while_its_turns_run(outage: Outage) -> None:
    arena, sender = outage.arena, outage.sender
    with sender.sending():
        pause(0.5)
        kill(arena.where.endpoint.pid)
        outage.runs(2)
    outage.kill_api()
    outage.start_api()
    sender.http.base_url = outage.url
    arena.where.endpoint = arena.where.broker.start()
    result = outage.all_ends()
    assert broken(result) == []
    assert set(result.outcomes) == {"completed"}
