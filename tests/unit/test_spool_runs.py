"""Spooled events as a ledger: which may run, one at a time, and how they are reported."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fleet.config.settings import Settings, parse
from fleet.errors import BrokerUnavailable, ConfigError, Fenced, Refused
from fleet.formats.redaction import HIDDEN
from fleet.intake.spool.acceptors import SpoolAwareAcceptor, SpoolingAcceptor
from fleet.intake.spool.query import query
from fleet.intake.spool.runs import SpoolLedger
from fleet.ledger import Claim, Ending, Failure, FailureStage, State
from fleet.ledger.protocol import Acceptor, Answer
from fleet.runtime import Runtime
from fleet.store import keys
from fleet.system import clock
from fleet.system.agent_lock import TurnLock, record_paused
from routing import Event, Plan, decide

AGENT = {"runner": "python", "python": "nobody:nothing"}
FAILED = Ending(failure=Failure(stage=FailureStage.LLM, reason="away", retryable=True))


def settings_in(folder: Path, **spool: Any) -> Settings:
    agents = {"a": AGENT, "b": AGENT, "poor": {**AGENT, "budget": {"tokens_per_day": 9}}}
    chains = {"c": {"stages": ["a"]}}
    fleet = {"data_dir": str(folder)}
    return parse({"fleet": fleet, "agents": agents, "chains": chains, "spool": spool})


class Kept:
    """A spool of a fleet whose broker is away."""

    def __init__(self, folder: Path, **spool: Any) -> None:
        self.settings = settings_in(folder, **spool)
        self.runtime = Runtime(self.settings)
        for _ in range(5):
            self.runtime.breaker.record_failure("test")

    @property
    def runs(self) -> SpoolLedger:
        return self.runtime.spool_ledger

    def send(self, number: int, to: str | list[str] = "a", **fields: Any) -> str:
        raw = {"to": to, "text": f"text {number}", **fields}
        event = Event.parse(raw, new_id=f"e{number}", now="2026-01-01T00:00:00Z")
        self.runtime.spool.store([(event, decide(event, self.settings.rules()))])
        return keys.dispatch_id(event.key, to if isinstance(to, str) else to[0])

    def claim(self, agent: str = "a", fence: int = 1) -> Claim | None:
        return self.runs.claim(agent, fence, "host:1")

    def claimed(self, agent: str = "a", fence: int = 1) -> Claim:
        claim = self.claim(agent, fence)
        assert claim is not None
        return claim

    def reports(self) -> dict[str, Any]:
        found, _ = self.runtime.spool.first(100)
        return {one.dispatch_id: one for event in found.values() for one in event.reports}


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_the_more_urgent_first_then_the_oldest_and_each_once(kept: Kept) -> None:
    first, second = kept.send(1), kept.send(2)
    urgent = kept.send(3, priority=9)
    ran = []
    while (claim := kept.claim()) is not None:
        ran.append(claim.dispatch_id)
        assert claim.attempt == 1
        kept.runs.commit(claim, Ending(answer="ok"))
    assert ran == [urgent, first, second]
    assert kept.runs.waiting() == []
    assert {one.ending.answer for one in kept.reports().values()} == {"ok"}


def test_an_event_that_needs_the_store_waits_for_it(kept: Kept) -> None:
    kept.send(1, session="talk")
    kept.send(2, to="chain:c")
    kept.send(3, to="poor")
    kept.send(4, to=["b", "poor"])
    submitted = Event.parse({"to": "a", "text": "x"}, new_id="e5", now="2026-01-01T00:00:00Z")
    kept.runtime.spool.record_submissions([submitted])
    kept.send(5)
    assert [kept.claim(agent) for agent in ("a", "b", "poor")] == [None, None, None]
    assert kept.runtime.spool.size().events == 5


def test_a_paused_agent_runs_nothing(kept: Kept) -> None:
    kept.send(1)
    record_paused(kept.settings.data_dir, "a", True)
    assert kept.claim() is None
    assert kept.runs.waiting() == []
    record_paused(kept.settings.data_dir, "a", False)
    assert kept.runs.waiting() == ["a"]
    assert kept.claim() is not None


def test_nothing_begins_when_the_broker_is_back(kept: Kept) -> None:
    kept.send(1)
    assert kept.runs.waiting() == ["a"]
    kept.runtime.breaker._change(lambda _state, _now: type(_state)())
    assert kept.runtime.breaker.closed
    assert kept.runs.waiting() == []
    assert kept.claim() is None


def test_a_turn_that_died_goes_on_from_its_journal_and_then_is_given_up(kept: Kept) -> None:
    dispatch_id = kept.send(1)
    first = kept.claimed(fence=1)
    assert kept.runs.step(first, "1", "entry") == ""
    second = kept.claimed(fence=2)
    assert (second.dispatch_id, second.attempt) == (dispatch_id, 2)
    assert kept.runs.steps(dispatch_id) == {"1": "entry"}
    with pytest.raises(Fenced):
        kept.runs.step(first, "2", "late")
    with pytest.raises(Fenced):
        kept.runs.commit(first, Ending(answer="late"))
    kept.claimed(fence=3)
    assert kept.claim(fence=4) is None, "three processes died of it"
    report = kept.reports()[dispatch_id]
    assert report.ending.failure.stage == FailureStage.WORKER_LOST
    assert report.losses == 3


def test_a_turn_that_was_cut_short_is_next_and_has_lost_nothing(kept: Kept) -> None:
    first = kept.send(1)
    kept.send(2, priority=9)
    kept.runs.commit(kept.claimed(), Ending(answer="ok"))
    kept.claimed()
    kept.runs.requeue()
    kept.send(3, priority=9)
    again = kept.claimed(fence=2)
    assert (again.dispatch_id, again.attempt) == (first, 2)
    assert kept.reports()[first].losses == 0


def test_the_same_outcome_twice_is_one_and_another_is_refused(kept: Kept) -> None:
    kept.send(1)
    claim = kept.claimed()
    assert kept.runs.commit(claim, Ending(answer="ok")) is State.COMPLETED
    assert kept.runs.commit(claim, Ending(answer="ok")) is State.COMPLETED
    with pytest.raises(Fenced):
        kept.runs.commit(claim, Ending(answer="other"))


def test_a_failure_is_for_the_ledger_to_judge(kept: Kept) -> None:
    dispatch_id = kept.send(1)
    kept.runs.commit(kept.claimed(), FAILED)
    assert kept.claim() is None
    assert kept.reports()[dispatch_id].ending == FAILED


def test_a_dispatch_that_no_provider_takes_is_left_for_later(kept: Kept) -> None:
    dispatch_id = kept.send(1)
    held = Failure(stage=FailureStage.LLM, reason="all are away", retryable=True, defer=True)
    assert kept.runs.commit(kept.claimed(), Ending(failure=held)) is State.QUEUED
    assert kept.claim() is None
    assert kept.reports()[dispatch_id].ending is None


def test_a_dispatch_can_be_queried_before_the_ledger_has_it(kept: Kept) -> None:
    done, failed, waits = kept.send(1), kept.send(2), kept.send(3)
    kept.runs.commit(kept.claimed(), Ending(answer="the answer"))
    kept.runs.commit(kept.claimed(), FAILED)
    spool = kept.runtime.spool

    def told(dispatch_id: str, *, content: bool = False) -> dict[str, Any]:
        record = query(spool, dispatch_id, content=content)
        assert record is not None
        return record

    assert (told(done)["state"], told(done)["answer"]) == ("completed", HIDDEN)
    assert told(done, content=True)["answer"] == "the answer"
    assert (told(failed)["state"], told(failed)["stage"]) == ("queued", "llm")
    (failure,) = told(failed)["failures"]
    assert (failure["attempt"], failure["stage"]) == (1, "llm")
    assert told(waits)["waiting_for"] == "the broker to be back"
    assert query(spool, "unknown", content=True) is None


def test_a_process_that_spools_nothing_comes_after_the_spool(kept: Kept) -> None:
    spool = kept.runtime.spool
    event = Event.parse({"to": "a", "text": "x"}, new_id="e9", now="2026-01-01T00:00:00Z")
    plan = decide(event, kept.settings.rules())
    asked: list[Event] = []

    class Ledger:
        def accept_many(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
            asked.extend(event for event, _ in batch)
            return [Refused("test")]

    behind = SpoolAwareAcceptor(Ledger(), spool, timeout_s=0.05)
    behind.accept_many([(event, plan)])
    assert asked == [event]
    kept.send(1)
    with pytest.raises(BrokerUnavailable, match="still holds events"):
        behind.accept_many([(event, plan)])
    assert asked == [event]
    # It was submitted: perhaps the ledger has it.
    kept.send(9)
    kept.runs.commit(kept.claimed(), Ending(answer="ok"))
    assert kept.claim() is None


def test_an_event_spooled_before_waits_for_the_ledger(kept: Kept) -> None:
    """It ran and was imported, and its sender repeats it in the next outage."""
    spool, runtime = kept.runtime.spool, kept.runtime

    def ledger() -> Acceptor:
        raise BrokerUnavailable("away")

    door = SpoolingAcceptor(ledger, runtime.breaker, spool)

    def send(number: int) -> None:
        event = Event.parse(
            {"to": "a", "text": "x"}, new_id=f"e{number}", now="2026-01-01T00:00:00Z"
        )
        door.accept_many([(event, decide(event, kept.settings.rules()))])

    send(1)
    kept.runs.commit(kept.claimed(), Ending(answer="ok"))
    spooled, last = spool.first(9)
    spool.record_submissions(one.event for one in spooled.values())
    spool.mark_imported(last)
    send(1)
    assert kept.claim() is None
    assert spool.size().events == 1
    send(2)
    assert kept.claimed().event.id == "e2"


def test_an_event_that_is_being_imported_does_not_run(kept: Kept) -> None:
    """The broker goes away again before it has answered."""
    done, cut, waits = kept.send(1), kept.send(2), kept.send(3)
    kept.runs.commit(kept.claimed(), Ending(answer="ok"))
    kept.claimed()
    spool = kept.runtime.spool
    spool.record_submissions(one.event for one in spool.first(9)[0].values())
    kept.runs.requeue()
    assert kept.runs.waiting() == []
    assert kept.claim() is None
    assert set(kept.reports()) == {done, cut} - {waits}
    later = kept.send(4)
    assert kept.runs.waiting() == ["a"]
    assert kept.claimed().dispatch_id == later


def test_an_ended_dispatch_makes_room_for_others(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    settings = kept.settings.agents["a"].model_copy(update={"max_pending": 2})
    kept.settings.agents["a"] = settings
    for number in range(6):
        kept.send(number)
        if claim := kept.claim():
            kept.runs.commit(claim, Ending(answer="ok"))
    assert kept.runtime.spool.size().events == 6
    spool = kept.runtime.spool
    assert spool.mark_imported(spool.first(10)[1])
    assert kept.reports() == {}
    with spool.view() as state:
        assert (state.entries, state.runs, state.bytes, +state.pending) == ({}, {}, 0, {})


def test_without_offline_execution_no_submission_is_recorded(tmp_path: Path) -> None:
    runtime = Runtime(settings_in(tmp_path, direct=False))
    event = Event.parse({"to": "a", "text": "x"}, new_id="e1", now="2026-01-01T00:00:00Z")
    runtime.spool.record_submissions([event])
    assert not runtime.spool.folder.exists()
    assert runtime.spool.may_have_run(keys.event_digest(event.key))


def test_a_broker_that_others_reach_is_not_replaced_unless_it_is_said(tmp_path: Path) -> None:
    tables: dict[str, Any] = {"agents": {"a": AGENT}}
    fleet = {"data_dir": str(tmp_path), "broker_url": "redis://10.0.0.1/0"}
    assert not parse({**tables, "fleet": fleet}).runs_offline
    assert parse({**tables, "fleet": fleet, "spool": {"direct": True}}).runs_offline
    assert not parse({**tables, "spool": {"max_events": 0}}).runs_offline
    with pytest.raises(ConfigError, match=r"spool\.direct"):
        parse({**tables, "spool": {"direct": "perhaps"}})


def test_workers_share_an_agent_and_the_spool_has_it_alone(tmp_path: Path) -> None:
    worker, standby, spool = (TurnLock(tmp_path, "a") for _ in range(3))
    assert worker.acquire(shared=True)
    assert standby.acquire(shared=True), "the lease decides"
    assert not spool.acquire()
    assert TurnLock(tmp_path, "b").acquire()
    standby.release()
    worker.release()
    assert spool.acquire()
    assert spool.acquire(), "still ours"
    assert not worker.acquire(shared=True)


def test_an_event_whose_deadline_has_passed_is_not_begun(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.send(1)
    set_forth = time.time() + 10 * 86400
    monkeypatch.setattr(time, "time", lambda: set_forth)
    assert kept.runs.waiting() == ["a"], "somebody set the machine's clock"
    later = clock.boottime() + 86401
    monkeypatch.setattr(clock, "boottime", lambda: later)
    assert kept.claim() is None


def test_nothing_runs_while_a_record_is_damaged(kept: Kept) -> None:
    """Perhaps it told that a turn has run."""
    kept.send(1)
    kept.send(2)
    (path,) = (kept.runtime.spool.folder / "segments").iterdir()
    path.write_bytes(path.read_bytes().replace(b"text 1", b"test 1"))
    other = Runtime(kept.settings)
    assert other.spool_ledger.claim("a", 1, "host:1") is None
    assert [one.event.id for one in other.spool.first(9)[0].values()] == ["e2"]
