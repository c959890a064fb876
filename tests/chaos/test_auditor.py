"""The auditor finds each kind of broken promise, and nothing in a history that kept them all."""

from dataclasses import replace
from typing import Any

import pytest

from fleet.bench._auditor import OFFLINE, Call, History, RunMark, audit
from fleet.ledger.bus import BusEvent


class Story:
    """A history, told from the beginning; time goes on by one with each thing told."""

    def __init__(self) -> None:
        self.now = 0
        self.bus: list[BusEvent] = []
        self.records: dict[str, dict[str, str]] = {}
        self.journal: dict[str, dict[str, int]] = {}
        self.marks: list[RunMark] = []
        self.calls: list[Call] = []
        self.fence = 0

    def tell(self, kind: str, **fields: Any) -> None:
        self.now += 1
        self.bus.append(BusEvent(id=f"{self.now}-0", epoch="e", type=kind, time="", fields=fields))

    def online(self, holder: str = "host:1", fence: int | None = None) -> None:
        self.fence = self.fence + 1 if fence is None else fence
        self.tell("agent_online", agent="a", holder=holder, fence=self.fence)

    def accept(self, dispatch_id: str, session: str = "", agent: str = "a") -> None:
        self.records[dispatch_id] = {
            "id": dispatch_id,
            "agent": agent,
            "session": session,
            "state": "queued",
            "attempt": "0",
            "order": str(len(self.records)),
        }
        self.tell("dispatch_queued", **self._who(dispatch_id))

    def start(self, dispatch_id: str) -> None:
        record = self.records[dispatch_id]
        record["attempt"] = str(int(record["attempt"]) + 1)
        self.tell("dispatch_started", **self._who(dispatch_id))
        self.mark("start", dispatch_id)

    def lose(self, dispatch_id: str) -> None:
        self.mark("alive", dispatch_id)
        self.tell("dispatch_failed", **self._who(dispatch_id), stage="worker_lost")

    def call(self, dispatch_id: str, step: str = "1", *, kept: bool = True) -> None:
        attempt = int(self.records[dispatch_id]["attempt"])
        self.now += 1
        self.calls.append(
            Call(
                dispatch_id=dispatch_id,
                step=step,
                attempt=attempt,
                started_ns=self.now,
                finished_ns=self.now,
            )
        )
        if kept:
            self.journal.setdefault(dispatch_id, {})[step] = attempt
            self.mark("kept", dispatch_id, step)

    def end(self, dispatch_id: str, kind: str = "completed") -> None:
        record = self.records[dispatch_id]
        self.mark("end", dispatch_id)
        record.update(state=kind, committed=f"{record['attempt']}/{self.fence}")
        self.tell(f"dispatch_{kind}", **self._who(dispatch_id))

    def mark(self, kind: str, dispatch_id: str, step: str = "", pid: int = 1) -> None:
        self.now += 1
        record = self.records[dispatch_id]
        self.marks.append(
            RunMark(
                at_ns=self.now,
                kind=kind,
                agent=record["agent"],
                session=record["session"],
                dispatch_id=dispatch_id,
                attempt=int(record["attempt"]),
                pid=pid,
                step=step,
            )
        )

    def _who(self, dispatch_id: str) -> dict[str, Any]:
        record = self.records[dispatch_id]
        named = {"session": record["session"]} if record["session"] else {}
        return {"dispatch_id": dispatch_id, "agent": record["agent"], **named}

    @property
    def history(self) -> History:
        return History(
            accepted=frozenset(self.records),
            bus=tuple(self.bus),
            records=self.records,
            journal=self.journal,
            marks=tuple(self.marks),
            calls=tuple(self.calls),
        )

    def kinds(self) -> set[str]:
        return {violation.partition(":")[0] for violation in audit(self.history).violations}


@pytest.fixture
def story() -> Story:
    """Two dispatches that ended, the first after a worker's death."""
    told = Story()
    told.online()
    told.accept("d1")
    told.accept("d2")
    told.start("d1")
    told.call("d1")
    told.lose("d1")
    told.online("host:2")
    told.start("d1")
    told.mark("kept", "d1", "1")
    told.call("d1", "2")
    told.end("d1")
    told.start("d2")
    told.call("d2")
    told.end("d2")
    return told


def test_a_kept_promise_is_no_violation(story: Story) -> None:
    result = audit(story.history)
    assert result.violations == []
    assert result.outcomes == {"completed": 2}
    assert (result.accepted, result.interrupted, result.resumed_steps) == (2, 1, 1)
    assert result.worst_s > 0


def test_accepted_and_never_ended_is_lost(story: Story) -> None:
    story.accept("d3")
    assert story.kinds() == {"lost"}


def test_accepted_and_unknown_to_the_ledger_is_lost(story: Story) -> None:
    history = replace(story.history, accepted=frozenset({"d1", "d2", "gone"}))
    assert audit(history).lost == ["gone is unknown in the ledger and [] on the bus"]


def test_an_outcome_that_nobody_could_read_on_the_bus_is_lost(story: Story) -> None:
    story.bus.pop()
    assert story.kinds() == {"lost"}


def test_two_outcomes_are_doubled(story: Story) -> None:
    story.tell("dispatch_dead", dispatch_id="d1", agent="a")
    assert story.kinds() == {"doubled"}


def test_another_outcome_in_the_ledger_is_doubled(story: Story) -> None:
    story.records["d2"]["state"] = "dead"
    assert story.kinds() == {"doubled"}


def test_a_start_after_the_outcome_is_doubled(story: Story) -> None:
    story.tell("dispatch_started", dispatch_id="d2", agent="a")
    assert story.kinds() == {"doubled"}


def test_a_turn_that_outlives_its_lease_overlaps_the_next(story: Story) -> None:
    story.marks.append(replace(story.marks[0], kind="alive", at_ns=story.marks[-1].at_ns - 1))
    assert "overlaps" in story.kinds()


def test_two_processes_in_one_attempt_overlap(story: Story) -> None:
    story.marks += [
        replace(story.marks[-2], pid=9, at_ns=story.marks[-2].at_ns - 1),
        replace(story.marks[-2], pid=9, at_ns=story.marks[-1].at_ns + 1),
    ]
    assert story.kinds() == {"overlaps"}


def test_a_start_while_another_runs_is_an_overlap_on_the_bus() -> None:
    story = Story()
    story.online()
    for dispatch_id in ("d1", "d2"):
        story.accept(dispatch_id)
    story.start("d1")
    story.tell("dispatch_started", dispatch_id="d2", agent="a")
    story.end("d1")
    story.end("d2")
    assert any("while a ran d1" in text for text in audit(story.history).overlaps)


def test_turns_of_one_session_must_not_overlap_on_two_agents() -> None:
    story = Story()
    story.online()
    story.accept("d1", "s", "a")
    story.accept("d2", "s", "b")
    story.start("d1")
    story.marks.append(replace(story.marks[-1], agent="b", dispatch_id="d2"))
    story.end("d1")
    story.start("d2")
    story.end("d2")
    assert any("session s" in text for text in audit(story.history).overlaps)


def test_an_interrupted_dispatch_that_is_overtaken_is_found() -> None:
    story = Story()
    story.online()
    for dispatch_id in ("d1", "d2"):
        story.accept(dispatch_id)
    story.start("d1")
    story.lose("d1")
    for dispatch_id in ("d2", "d1"):
        story.start(dispatch_id)
        story.end(dispatch_id)
    assert story.kinds() == {"overlaps"}


def test_a_first_start_before_an_earlier_one_is_reordered() -> None:
    story = Story()
    story.online()
    for dispatch_id in ("d1", "d2"):
        story.accept(dispatch_id)
    for dispatch_id in ("d2", "d1"):
        story.start(dispatch_id)
        story.end(dispatch_id)
    assert story.kinds() == {"reordered"}


def test_a_session_waits_for_one_that_is_retried() -> None:
    story = Story()
    story.online()
    for dispatch_id in ("d1", "d2"):
        story.accept(dispatch_id, "s")
    story.start("d1")
    story.mark("end", "d1")
    story.tell("dispatch_failed", dispatch_id="d1", agent="a", session="s", stage="llm")
    for dispatch_id in ("d2", "d1"):
        story.start(dispatch_id)
        story.end(dispatch_id)
    assert story.kinds() == {"reordered"}


def test_without_a_session_a_retried_one_is_passed() -> None:
    story = Story()
    story.online()
    for dispatch_id in ("d1", "d2"):
        story.accept(dispatch_id)
    story.start("d1")
    story.mark("end", "d1")
    story.tell("dispatch_failed", dispatch_id="d1", agent="a", stage="llm")
    for dispatch_id in ("d2", "d1"):
        story.start(dispatch_id)
        story.end(dispatch_id)
    assert story.kinds() == set()


def test_a_call_made_again_although_it_was_kept_is_repeated(story: Story) -> None:
    story.calls.append(replace(story.calls[0], attempt=2))
    assert story.kinds() == {"repeated_calls"}


def test_a_journal_that_was_overwritten_does_not_hide_it(story: Story) -> None:
    story.calls.append(replace(story.calls[0], attempt=2))
    story.journal["d1"]["1"] = 2
    assert story.kinds() == {"repeated_calls"}


def test_a_call_made_twice_by_one_attempt_is_repeated(story: Story) -> None:
    story.calls.append(story.calls[-1])
    assert story.kinds() == {"repeated_calls"}


def test_a_call_that_no_journal_got_may_be_made_again() -> None:
    story = Story()
    story.online()
    story.accept("d1")
    story.start("d1")
    story.call("d1", kept=False)
    story.lose("d1")
    story.start("d1")
    story.call("d1")
    story.end("d1")
    result = audit(story.history)
    assert result.violations == []
    assert result.paid_again == 1


def test_an_outcome_under_an_old_token_is_stale(story: Story) -> None:
    story.records["d2"]["committed"] = "1/1"
    assert story.kinds() == {"stale_writes"}


def test_a_turn_in_a_pool_has_a_token_of_its_own(story: Story) -> None:
    story.records["d2"].update(pool="p", fence="77", committed="1/77")
    assert story.kinds() == set()
    story.records["d2"]["committed"] = "1/76"
    assert story.kinds() == {"stale_writes"}


def test_an_outcome_of_an_old_attempt_is_stale(story: Story) -> None:
    story.records["d1"]["committed"] = "1/2"
    assert story.kinds() == {"stale_writes"}


def test_a_token_that_goes_back_or_is_shared_is_found(story: Story) -> None:
    story.online("host:3", fence=1)
    assert len(audit(story.history).stale_writes) == 2


def test_what_an_outage_took_and_never_gave_back_names_its_door(story: Story) -> None:
    history = replace(
        story.history,
        accepted=frozenset({"d1", "d2", "gone"}),
        in_outage={"gone": "http, while the broker was hung", "d1": "cli, while ..."},
    )
    (told,) = audit(history).violations
    assert told.startswith("outage_lost: gone is unknown")
    assert told.endswith("accepted by http, while the broker was hung")


def test_one_event_with_two_sets_of_ids_is_doubled(story: Story) -> None:
    history = replace(story.history, contradictions=("e1 was told d1, then d3",))
    assert audit(history).violations == ["doubled: e1 was told d1, then d3"]


def ran_before(story: Story, dispatch_id: str, place: str) -> None:
    """Another process ran the last attempt to its end before the one that did."""
    story.marks = [replace(mark, at_ns=10 * mark.at_ns) for mark in story.marks]
    first = next(mark for mark in story.marks if mark.dispatch_id == dispatch_id)
    story.marks += [
        replace(first, kind=kind, pid=9, place=place, at_ns=first.at_ns - before)
        for kind, before in (("start", 7), ("done", 6), ("end", 5))
    ]


def test_what_ran_offline_and_again_in_a_worker_is_found(story: Story) -> None:
    ran_before(story, "d2", OFFLINE)
    assert story.kinds() == {"offline_twice"}


def test_what_ran_twice_in_workers_is_found(story: Story) -> None:
    ran_before(story, "d2", "worker")
    assert story.kinds() == {"run_twice"}


def test_a_call_after_the_end_of_an_earlier_attempt_is_found(story: Story) -> None:
    """Whatever became of the ids' attempts: the last step had been made, and another call came."""
    ran = next(mark for mark in story.marks if mark.dispatch_id == "d1")
    story.marks.append(replace(ran, kind="done", at_ns=ran.at_ns + 1, place=OFFLINE, attempt=1))
    assert "offline_twice" in story.kinds()


def test_an_attempt_that_died_before_its_commit_may_be_followed_by_a_replay() -> None:
    story = Story()
    story.online()
    story.accept("d1")
    story.start("d1")
    story.call("d1")
    story.mark("done", "d1")
    story.lose("d1")
    story.start("d1")
    story.mark("kept", "d1", "1")
    story.mark("done", "d1")
    story.end("d1")
    assert audit(story.history).violations == []


def test_offline_beside_a_worker_is_an_overlap_of_its_own_kind(story: Story) -> None:
    story.marks += [
        replace(story.marks[-2], pid=9, place=OFFLINE, at_ns=story.marks[-2].at_ns - 1),
        replace(story.marks[-2], pid=9, place=OFFLINE, at_ns=story.marks[-1].at_ns + 1),
    ]
    assert "offline_overlaps" in story.kinds()
    assert "overlaps" not in story.kinds()


def test_the_import_of_an_offline_turn_is_no_overlap_on_the_bus() -> None:
    """Its entries come with the ledger's, long after its time."""
    story = Story()
    story.online()
    story.accept("d1")
    story.start("d1")
    story.lose("d1")
    story.accept("d2")
    # One script writes both, in one millisecond; it was cut off before it wrote a line.
    story.bus.append(replace(story.bus[-1], type="dispatch_started"))
    story.tell("dispatch_queued", dispatch_id="d2", agent="a")
    story.start("d1")
    story.end("d1")
    story.start("d2")
    story.end("d2")
    assert "overlaps" not in story.kinds()
