"""Chains on real workers and by the command line; and everything killed between the stages."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.store import keys
from tests.fixtures.fleet import FOLDER_MARK, ROOT, Fleet, fleet_of
from tests.fixtures.processes import gone, wait_until

FLEET = Path(sys.executable).with_name("fleet")
AGENTS: dict[str, dict[str, Any]] = {"archie": {}, "gem": {}, "mini": {}}
MORE: dict[str, dict[str, Any]] = {
    "routes": {"groups": {"reviewers": ["gem", "mini"]}},
    "chains.release": {"stages": ["archie", "@reviewers", "human:ops"]},
    "chains.ask": {"stages": ["human:ops", "gem"]},
    "chains.lenient": {"stages": ["archie", "gem"], "on_failure": "skip"},
    "chains.strict": {"stages": ["archie", "gem"]},
    "chains.quick": {"stages": [{"agent": "gem", "timeout_s": 0.5}]},
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet_of(tmp_path_factory.mktemp("fleet"), AGENTS, sections=MORE) as fleet:
        fleet.ready(*AGENTS)
        yield fleet


def command(fleet: Fleet, *args: str) -> "subprocess.Popen[str]":
    """A command of the fleet, beside others."""
    return subprocess.Popen(
        [FLEET, *args],
        cwd=fleet.folder,
        env={FOLDER_MARK: str(fleet.folder), "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def send(fleet: Fleet, chain: str, text: str) -> tuple[str, str]:
    """An event for a chain: its key, and the chain's id."""
    accepted = fleet.books.intake.accept({"to": f"chain:{chain}", "text": text})
    return f"fleet\n{accepted.event_id}", str(accepted.chain_id)


def chain_state(fleet: Fleet, chain_id: str) -> str:
    return str(fleet.books.store.client.hget(keys.chain(chain_id), "state"))


def wait_ended(fleet: Fleet, chain_id: str, outcome: str) -> None:
    wait_until(lambda: chain_state(fleet, chain_id) != "running", 30)
    assert chain_state(fleet, chain_id) == outcome


def parked(fleet: Fleet) -> str:
    """The id of the one dispatch that waits for a person."""

    def found() -> list[str]:
        told = fleet.books.bus("dispatch_parked")
        ids = [str(entry.fields["dispatch_id"]) for entry in told]
        return [dispatch_id for dispatch_id in ids if fleet.books.state(dispatch_id) == "parked"]

    wait_until(lambda: bool(found()), 30)
    (dispatch_id,) = found()
    return dispatch_id


def test_the_sender_follows_it_to_its_end(fleet: Fleet) -> None:
    text = "vote archie=draft gem=revise,approve mini=approve"
    sender = command(fleet, "send", text, "--to", "chain:release", "--wait", "--timeout", "60")
    approver = command(fleet, "approve", parked(fleet), "--by", "ann", "--reason", "go", "--json")
    assert json.loads(approver.communicate(timeout=40)[0])["state"] == "completed"
    out, err = sender.communicate(timeout=60)
    assert sender.returncode == 0, err
    lines = out.splitlines()
    assert lines[0] == "archie: draft"
    # Every stage saw what came before it, over both rounds.
    (again,) = [lines[n + 1] for n, line in enumerate(lines) if line == "archie: draft" and n]
    assert again.startswith("after archie:approve ")
    assert "gem:revise" in again
    assert lines[-1] == "human:ops: go"
    assert "dispatch_parked" in err
    assert "chain_ended" in err


def test_two_people_at_once_and_a_third(fleet: Fleet) -> None:
    """Each a process of its own."""
    _, chain_id = send(fleet, "ask", "vote gem=approve")
    dispatch_id = parked(fleet)
    people = [
        command(fleet, "approve", dispatch_id, "--by", "ann"),
        command(fleet, "reject", dispatch_id, "--by", "bob", "--reason", "no"),
        command(fleet, "approve", dispatch_id, "--by", "eve"),
    ]
    said = [person.communicate(timeout=40) for person in people]
    codes = [person.returncode for person in people]
    assert sorted(codes) == [0, 1, 1]
    first = ("ann", "bob", "eve")[codes.index(0)]
    for code, (_, err) in zip(codes, said, strict=True):
        assert code == 0 or f"ed by {first} at " in err
    wait_ended(fleet, chain_id, "rejected" if first == "bob" else "completed")
    assert len(fleet.books.ends(dispatch_id)) == 1


def test_a_rejection_stops_it_and_the_sender_is_told(fleet: Fleet) -> None:
    text = "vote archie=REJECT:no gem=approve"
    sender = command(fleet, "send", text, "--to", "chain:strict", "--wait", "--timeout", "60")
    _, err = sender.communicate(timeout=60)
    assert sender.returncode == 1
    assert err.endswith("fleet: chain strict: rejected (stage 1 (archie) rejects)\n")


def test_a_failed_stage_stops_it_or_is_skipped(fleet: Fleet) -> None:
    key, stopped = send(fleet, "strict", "vote archie=fail gem=approve")
    _, skipped = send(fleet, "lenient", "vote archie=fail gem=approve")
    wait_ended(fleet, stopped, "dead")
    assert not fleet.books.state(keys.stage_dispatch_id(key, "strict", 2, 1, "gem"))
    wait_ended(fleet, skipped, "completed")


def test_a_stage_may_have_a_limit_of_its_own(fleet: Fleet) -> None:
    key, chain_id = send(fleet, "quick", "vote gem=hang")
    wait_ended(fleet, chain_id, "dead")
    record = fleet.books.record(keys.stage_dispatch_id(key, "quick", 1, 1, "gem"))
    assert record["stage"] == "timeout"
    reason, _, place = record["error"].partition(", at ")
    assert reason == "the turn took longer than its limit of 0.5 s"
    assert place.startswith("tests/fixtures/agents.py:")
    # The next turn has the agent's own again.
    fleet.wait_state(fleet.send("gem", "say hello"), "completed")


def approved(fleet: Fleet, dispatch_id: str, by: str) -> bool:
    """True when this person approved it."""
    person = command(fleet, "approve", dispatch_id, "--by", by)
    person.communicate(timeout=40)
    return person.returncode == 0


def kill_everything(fleet: Fleet) -> None:
    """SIGKILL to each process at once, the server too; and the server again, from its disk."""
    children = [child for process in fleet.processes for child in process.children()]
    for process in fleet.processes:
        process.kill()
    fleet.server.kill()
    wait_until(lambda: all(gone(child) for child in children))
    fleet.server.start()


def test_everything_may_die_between_any_two_stages_and_within_one(tmp_path: Path) -> None:
    agents: dict[str, dict[str, Any]] = {"archie": {}, "gem": {}}
    more = {"chains.release": {"stages": ["archie", "human:ops", "gem"]}}
    with fleet_of(tmp_path, agents, durable=True, sections=more) as fleet:
        key, chain_id = send(fleet, "release", "vote archie=draft gem=gate")
        kill_everything(fleet)
        fleet.ready("archie")
        dispatch_id = parked(fleet)
        kill_everything(fleet)
        assert fleet.books.state(dispatch_id) == "parked"
        assert approved(fleet, dispatch_id, "ann")
        kill_everything(fleet)
        assert not approved(fleet, dispatch_id, "bob")
        last = keys.stage_dispatch_id(key, "release", 3, 1, "gem")
        assert fleet.books.state(last) == "queued"
        fleet.ready("gem")
        fleet.wait_started(last)
        kill_everything(fleet)
        fleet.open_gate("vote")
        fleet.ready("gem")
        wait_ended(fleet, chain_id, "completed")
        assert fleet.books.store.client.get(keys.outcome(last)) == (
            "gate\nafter archie:approve human:ops:approve"
        )
        ended = [entry.fields["dispatch_id"] for entry in fleet.books.bus("dispatch_completed")]
        assert len(ended) == len(set(ended)) == 3
        assert len(fleet.books.bus("chain_ended")) == 1


def test_a_worker_that_is_killed_in_a_stage_does_its_turn_again(fleet: Fleet) -> None:
    (fleet.folder / "vote").unlink(missing_ok=True)
    key, chain_id = send(fleet, "strict", "vote archie=gate gem=approve")
    first = keys.stage_dispatch_id(key, "strict", 1, 1, "archie")
    os.kill(fleet.wait_started(first), signal.SIGKILL)
    fleet.wait_started(first, times=2)
    fleet.open_gate("vote")
    wait_ended(fleet, chain_id, "completed")
    assert fleet.books.ends(first) == ["dispatch_completed"]
