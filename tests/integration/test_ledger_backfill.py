"""Outcomes of turns that ran while the store was away enter the ledger, each once, counted."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fleet.config.settings import parse
from fleet.errors import BrokerUnavailable
from fleet.intake.spool.drainer import Drainer
from fleet.intake.spool.offline import OfflineProcess
from fleet.ledger import Ending, Failure, FailureStage, ImportedEvent, Report, ValkeyLedger
from fleet.ledger.views import spend
from fleet.runtime import Runtime
from fleet.store import Store, keys
from fleet.store.calls import AgentCall
from fleet.system.agent_lock import is_paused
from routing import Event, decide
from tasks.execution import OFFLINE_COMMAND
from tests.fixtures.ledger import FOR_GOOD, OUTAGE, Books, settings_for

RETRY = {"attempts": 3, "backoff_s": 30, "min_age_s": 0}
ANSWER = Ending(answer="done", facts={"model": "m", "tokens_in": 7, "tokens_out": 3, "usd": "0.5"})


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, settings_for("a", "b", retry=RETRY))


def kept(books: Books, number: int, *reports: Report, age_s: float = 60.0) -> ImportedEvent:
    event = Event.parse(
        {"to": "a", "text": f"t{number}"}, new_id=f"e{number}", now="2026-01-01T00:00:00Z"
    )
    plan = decide(event, books.settings.rules())
    return ImportedEvent(event=event, plan=plan, age_s=age_s, reports=reports)


def id_of(number: int) -> str:
    event = Event.parse({"to": "a", "text": "any"}, new_id=f"e{number}", now="2026-01-01T00:00:00Z")
    return keys.dispatch_id(event.key, "a")


def report(number: int, ending: Ending | None, **fields: Any) -> Report:
    told = {
        "attempt": 1,
        "losses": 0,
        "run": "spool-1",
        "steps": {"1": json.dumps({"name": "one", "result": "one"})},
        **fields,
    }
    return Report(
        dispatch_id=id_of(number),
        agent="a",
        holder="host:1",
        started_ago_s=50.0,
        elapsed_s=2.0,
        ending=ending,
        **told,
    )


def types(books: Books) -> list[str]:
    return [entry.type for entry in books.bus() if entry.type.startswith(("event_", "dispatch_"))]


def test_an_answer_is_in_the_books_and_nobody_runs_it(books: Books) -> None:
    assert books.ledger.import_spooled([kept(books, 1, report(1, ANSWER)), kept(books, 2)]) == 0
    record = books.record(id_of(1))
    assert (record["state"], record["attempt"], record["elapsed_ms"]) == ("completed", "1", "2000")
    assert books.store.client.get(keys.outcome(id_of(1))) == "done"
    assert types(books) == [
        *("event_accepted", "dispatch_queued", "dispatch_started", "dispatch_completed"),
        *("event_accepted", "dispatch_queued"),
    ]
    row = spend(books.store, ["a"])["a"]
    assert (row["tokens_in"], row["tokens_out"], row["usd"]) == (7, 3, 0.5)
    lease = books.held()
    assert books.claimed(lease).dispatch_id == id_of(2)


def test_told_again_it_is_the_same_and_counted_once(books: Books) -> None:
    batch = [kept(books, 1, report(1, ANSWER))]
    assert [books.ledger.import_spooled(batch) for _ in range(3)] == [0, 0, 0]
    assert books.ends(id_of(1)) == ["dispatch_completed"]
    assert spend(books.store, ["a"])["a"]["tokens_in"] == 7


@pytest.mark.parametrize(("failure", "state"), [(OUTAGE, "retrying"), (FOR_GOOD, "dead")])
def test_a_failure_is_judged_by_the_ledger(books: Books, failure: Failure, state: str) -> None:
    books.ledger.import_spooled([kept(books, 1, report(1, Ending(failure=failure)))])
    assert books.state(id_of(1)) == state
    (failed,) = books.bus("dispatch_failed")
    assert failed.fields["will_retry"] is (state == "retrying")


def test_one_that_was_cut_short_goes_on_first_with_its_steps(books: Books) -> None:
    cut = report(2, None, attempt=2)
    books.ledger.import_spooled([kept(books, 1), kept(books, 2, cut)])
    claim = books.claimed(books.held())
    assert (claim.dispatch_id, claim.attempt) == (id_of(2), 3)
    assert json.loads(books.ledger.steps(id_of(2))["1"])["result"] == "one"
    books.fail(claim)
    assert books.state(id_of(2)) == "retrying", "attempts that were cut short are not used up"


def test_what_was_paid_counts_once_though_its_turn_was_cut_short(books: Books) -> None:
    paid = {"name": "llm", "result": {"tokens_in": 7, "tokens_out": 3, "usd": 0.5}}
    steps = {"1": json.dumps(paid), "2": json.dumps({"name": "tool", "result": "text"})}
    cut, done = report(1, None, steps=steps), report(2, ANSWER, steps=steps)
    books.ledger.import_spooled([kept(books, 1, cut), kept(books, 2, done)])
    row = spend(books.store, ["a"])["a"]
    assert (row["tokens_in"], row["tokens_out"], row["usd"]) == (14, 6, 1.0)
    assert books.record(id_of(1))["tokens_in"] == "7"


def test_how_an_event_was_typed_is_told(books: Books) -> None:
    result = {"verification": "timeout_fallback", "reason": "no echo"}
    typed = json.dumps({"name": "inject", "handed_over": True, "result": result})
    books.ledger.import_spooled([kept(books, 1, report(1, ANSWER, steps={"1": typed}))])
    assert books.record(id_of(1))["injected"] == "timeout_fallback"
    (told,) = books.bus("delivery_verified")
    assert (told.fields["verification"], told.fields["reason"]) == ("timeout_fallback", "no echo")


def test_lost_processes_count(books: Books) -> None:
    lost = Failure(stage=FailureStage.WORKER_LOST, reason="three died", retryable=False)
    books.ledger.import_spooled(
        [kept(books, 1, report(1, Ending(failure=lost), attempt=3, losses=3))]
    )
    record = books.record(id_of(1))
    assert (record["state"], record["stage"], record["losses"]) == ("dead", "worker_lost", "3")


def test_a_turn_that_runs_now_is_left_alone(books: Books) -> None:
    lease = books.held()
    books.accept("a", id="other")
    running = books.claimed(lease)
    books.ledger.import_spooled(
        [
            kept(books, 1, report(1, ANSWER)),
            kept(books, 2, report(2, Ending(failure=OUTAGE))),
            kept(books, 3, report(3, None)),
        ]
    )
    assert books.store.client.hget(keys.agent("a"), "active") == running.dispatch_id
    assert books.complete(running) == "completed"


def test_one_that_the_ledger_began_itself_keeps_its_own_outcome(books: Books) -> None:
    books.ledger.import_spooled([kept(books, 1)])
    books.complete(books.claimed(books.held()), "the first")
    assert books.ledger.import_spooled([kept(books, 1, report(1, ANSWER))]) == 1
    assert books.store.client.get(keys.outcome(id_of(1))) == "the first"
    assert books.ends(id_of(1)) == ["dispatch_completed"]


def test_another_run_of_the_same_is_too_late(books: Books) -> None:
    """It ran from the spool in two outages."""
    first = kept(books, 1, report(1, ANSWER))
    other = kept(books, 1, report(1, Ending(answer="another"), run="spool-2"))
    assert [books.ledger.import_spooled([one]) for one in (first, other, first)] == [0, 1, 0]
    assert books.store.client.get(keys.outcome(id_of(1))) == "done"
    assert books.ends(id_of(1)) == ["dispatch_completed"]


def test_told_again_while_a_worker_goes_on_with_it_it_is_not_too_late(books: Books) -> None:
    cut = kept(books, 1, report(1, None))
    assert books.ledger.import_spooled([cut]) == 0
    claim = books.claimed(books.held())
    assert books.ledger.import_spooled([cut]) == 0
    assert books.complete(claim) == "completed"


def test_a_dispatch_whose_deadline_passed_offline_still_has_its_answer(books: Books) -> None:
    books.ledger.import_spooled([kept(books, 1, report(1, ANSWER), age_s=100_000)])
    books.reclaim()
    assert books.ends(id_of(1)) == ["dispatch_completed"]


def drainer_of(
    runtime: Runtime, ledger: Callable[[], ValkeyLedger], offline: OfflineProcess | None = None
) -> Drainer:
    """A drainer that imports into `ledger`, on its store."""
    return Drainer(
        *(runtime.breaker, runtime.spool),
        ledger=ledger,
        store=lambda: ledger().store,
        offline=offline,
    )


class Spooled:
    """The spool of a fleet whose spooled events run, and its drainer."""

    def __init__(self, store: Store, folder: Path) -> None:
        agents = {"a": {"runner": "python", "python": "nobody:nothing"}}
        self.settings = parse({"fleet": {"data_dir": str(folder)}, "agents": agents})
        self.books, self.runtime = Books(store, self.settings), Runtime(self.settings)
        self.ledger = self.books.ledger
        self.drainer = drainer_of(self.runtime, lambda: self.ledger)
        self.away()

    def away(self) -> None:
        self.runtime.breaker.record_failure("test", refusal="The password is wrong.")

    def back(self) -> None:
        self.runtime.breaker.begin_probe(writable=True)
        self.runtime.breaker.end_probe(well=True)
        assert self.runtime.breaker.closed

    def keep(self, number: int) -> None:
        one = kept(self.books, number)
        self.runtime.spool.store([(one.event, one.plan)])

    def run(self) -> bool:
        """Run a turn; False when none could be claimed."""
        claim = self.runtime.spool_ledger.claim("a", 1, "host:1")
        if claim is not None:
            self.runtime.spool_ledger.commit(claim, ANSWER)
        return claim is not None


class Mute(ValkeyLedger):
    """Does what it is asked, and its answer is lost."""

    def import_spooled(self, batch: Sequence[ImportedEvent]) -> int:
        super().import_spooled(batch)
        raise BrokerUnavailable("no answer")


def test_an_imported_event_never_runs_from_the_spool_again(store: Store, tmp_path: Path) -> None:
    spooled = Spooled(store, tmp_path)
    spooled.keep(1)
    assert spooled.run()
    spooled.back()
    assert spooled.drainer.work() == 1
    spooled.away()
    spooled.keep(1)
    assert not spooled.run()
    spooled.back()
    assert spooled.drainer.work() == 1
    assert spooled.books.ends(id_of(1)) == ["dispatch_completed"]
    assert spooled.books.bus("alert") == []


def test_without_the_file_that_tells_of_them_events_are_imported(
    store: Store, tmp_path: Path
) -> None:
    spooled = Spooled(store, tmp_path)
    spooled.keep(1)
    (tmp_path / "spool" / "holds").unlink()
    spooled.drainer.work()
    assert spooled.runtime.spool.holds, "otherwise an event goes past those that wait"
    (tmp_path / "spool" / "holds").unlink()
    spooled.back()
    assert spooled.drainer.work() == 1
    assert spooled.books.state(id_of(1)) == "queued"
    assert not spooled.runtime.spool.holds


def test_an_event_that_may_have_been_imported_does_not_run_from_the_spool(
    store: Store, tmp_path: Path
) -> None:
    spooled = Spooled(store, tmp_path)
    spooled.keep(1)
    spooled.back()
    spooled.ledger = Mute(store, spooled.settings)
    with pytest.raises(BrokerUnavailable, match="no answer"):
        spooled.drainer.work()
    spooled.ledger = spooled.books.ledger
    spooled.away()
    assert not spooled.run()
    spooled.back()
    spooled.books.complete(spooled.books.claimed(spooled.books.held()))
    assert spooled.drainer.work() == 1
    assert spooled.books.ends(id_of(1)) == ["dispatch_completed"]
    assert spooled.books.bus("alert") == []


def test_a_dispatch_that_ran_twice_all_the_same_is_an_alert(store: Store, tmp_path: Path) -> None:
    """Nobody remembers that it was kept: a power loss, or a folder from a backup."""
    spooled = Spooled(store, tmp_path)
    for _ in range(2):
        spooled.keep(1)
        assert spooled.run()
        spooled.back()
        assert spooled.drainer.work() == 1
        spooled.away()
        for file in (tmp_path / "spool" / "slots").glob("*.submitted"):
            file.write_bytes(bytes(file.stat().st_size))
    assert spooled.books.ends(id_of(1)) == ["dispatch_completed"]
    (alert,) = spooled.books.bus("alert")
    assert alert.fields["name"] == "ran_twice"
    assert alert.fields["reason"].startswith("1 dispatches")


def test_outcomes_are_imported_although_offline_execution_is_off_now(
    store: Store, tmp_path: Path
) -> None:
    """The operator has switched it off since."""
    agents = {"a": {"runner": "python", "python": "nobody:nothing"}}
    tables = {"fleet": {"data_dir": str(tmp_path)}, "agents": agents}
    before, now = parse(tables), parse({**tables, "spool": {"direct": False}})
    runtime, one = Runtime(before), kept(Books(store, before), 1)
    runtime.breaker.record_failure("test", refusal="The password is wrong.")
    runtime.spool.store([(one.event, one.plan)])
    claim = runtime.spool_ledger.claim("a", 1, "host:1")
    assert claim is not None
    runtime.spool_ledger.commit(claim, ANSWER)
    (tmp_path / "breaker").unlink()  # closed again
    books, runtime = Books(store, now), Runtime(now)
    assert drainer_of(runtime, lambda: books.ledger).work() == 1
    assert books.ends(id_of(1)) == ["dispatch_completed"]
    assert books.claim(books.held()) is None


def test_an_agent_that_was_paused_before_is_known_as_such(store: Store, tmp_path: Path) -> None:
    agents = {"a": {"runner": "python", "python": "nobody:nothing"}}
    settings = parse({"fleet": {"data_dir": str(tmp_path)}, "agents": agents})
    books, runtime = Books(store, settings), Runtime(settings)
    store.run(AgentCall(agent="a", verb="pause"))
    offline = OfflineProcess(settings, runtime.breaker, runtime.spool_ledger, OFFLINE_COMMAND)
    drainer_of(runtime, lambda: books.ledger, offline).work()
    assert is_paused(tmp_path, "a")


def test_a_quarantined_event_is_imported_once_it_can_be(store: Store, tmp_path: Path) -> None:
    """Its chain was taken out of the configuration, and is back."""
    agents = {"a": {"runner": "python", "python": "nobody:nothing"}}
    tables = {"fleet": {"data_dir": str(tmp_path)}, "agents": agents}
    whole, without = parse({**tables, "chains": {"c": {"stages": ["a"]}}}), parse(tables)
    raw = {"to": "chain:c", "text": "x"}
    found = Event.parse(raw, new_id="e1", now="2026-01-01T00:00:00Z")
    spool = Runtime(whole).spool
    spool.store([(found, decide(found, whole.rules()))])
    books = Books(store, without)
    before = drainer_of(Runtime(without), lambda: books.ledger)
    assert before.work() == 0
    assert len(spool.quarantined()) == 1
    before.close()
    books = Books(store, whole)
    drainer_of(Runtime(whole), lambda: books.ledger).work()
    assert spool.quarantined() == []
    assert len(books.bus("event_accepted")) == 1
