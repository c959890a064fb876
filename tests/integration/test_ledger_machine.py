"""The Lua moves against the model of `tests.fixtures.model`: any order of any verbs.

After each step the store must hold exactly what the model holds: each record, list and count, and
one bus entry for each move. Time is the test's own: it is patched into the scripts.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fleet.config.routes import RoutesConfig
from fleet.ledger import operations
from fleet.store import keys
from tests.fixtures import model
from tests.fixtures.ledger import TERMINAL_TYPES
from tests.fixtures.machine import ADVANCE, AGENTS, ENDINGS, Acts, Patches, stored
from tests.fixtures.valkey import Valkey

#: Each takes a few seconds of CPU, and on a crowded machine a multiple of the usual limit.
pytestmark = pytest.mark.timeout(240)

#: What befalls a worker, by the names of the methods of `Acts`.
WORKERS = ("take", "new_worker", "cut_off", "renew", "renew_idle", "release", "claim", "hard_limit")

agents = st.sampled_from(AGENTS)
targets = st.sampled_from([["a"], ["a"], ["b"], ["a", "b"], ["b", "a"]])
sessions = st.sampled_from(["", "", "s", "t"])
#: Counted from the newest one.
recent = st.integers(0, 3)
mostly_newest = st.sampled_from([0, 0, 0, 1, 2])


class Zombies(Acts, RuleBasedStateMachine):
    """Turns of workers that are replaced, and then hold on to what is no longer theirs."""

    server: Valkey
    patches: Patches
    routes: RoutesConfig

    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        Acts.__init__(self, self.server, self.patches, self.routes)

    def teardown(self) -> None:
        self.close()

    @rule(agent=agents, how=st.sampled_from(["", "", "", *ENDINGS]), session=sessions)
    def send_and_turn(self, agent: str, how: str, session: str) -> None:
        """Without a `how` the turn is not finished yet."""
        self.send([agent], session, 5)
        self.turn(agent, how)

    @rule(agent=agents, which=mostly_newest)
    def worker_is_replaced(self, agent: str, which: int) -> None:
        self.cut_off(agent, which)
        self.new_worker(agent)
        self.take(agent, 0)

    @precondition(lambda self: self.claims)
    @rule(which=recent, how=st.sampled_from([*ENDINGS, "retryable", "step"]))
    def late(self, which: int, how: str) -> None:
        """Anything that any attempt there ever was still may do."""
        if how == "step":
            self.step(which)
        else:
            self.commit(which, how)

    # What is always true

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        rows = self.model.rows
        found = self.read()
        for dispatch_id, row in rows.items():
            assert found["records"][dispatch_id] == stored(row)
        by_seq = sorted(rows.values(), key=lambda row: row.seq)
        assert found["index"] == [row.id for row in by_seq]
        assert found["counts"] == self.model.counts()
        assert found["fences"] == self.model.fences
        assert found["retry"] == {row.id for row in by_seq if row.state == "retrying"}
        assert found["deadlines"] == {row.id for row in by_seq if row.state in model.WAITING}
        assert found["dead"] == {row.id for row in by_seq if row.state == "dead"}
        over = {row.id for row in by_seq if not row.live and row.state != "dead"}
        assert found["ended"] == over
        for agent in AGENTS:
            assert found["due"][agent] == [row.id for row in self.model.runnable(agent)]
            assert found["active"][agent] == self.model.active.get(agent)
            assert found["leased"][agent] == self.model.leases.get(agent, (None,))[0]

    @invariant()
    def an_event_ends_with_its_last_member(self) -> None:
        rows, events = self.model.rows, self.model.newest_events().values()
        expected = [
            (
                "open" if event.open > 0 else "ended",
                [event.ends.get(one) or rows[one].state for one in event.ids],
            )
            for event in events
        ]
        assert self.read_parents() == expected

    @invariant()
    def every_move_is_on_the_bus_once(self) -> None:
        assert self.hear() == self.model.log

    @invariant()
    def one_turn_at_a_time(self) -> None:
        running = [row for row in self.model.rows.values() if row.state == "active"]
        assert len({row.agent for row in running}) == len(running)
        sessions = [row.session for row in running if row.session]
        assert len(set(sessions)) == len(sessions)

    @invariant()
    def one_outcome_for_each_generation(self) -> None:
        ends = {name.removeprefix("dispatch_") for name in TERMINAL_TYPES} - {"dropped"}
        for row in self.model.rows.values():
            told = sum(what in ends for what in self.log.get(row.id, []))
            assert told >= row.generation - row.live


class Fleet(Zombies):
    """The other moves: people, beat, time, and messages that get lost."""

    @rule(to=targets, session=sessions, priority=st.sampled_from([5, 5, 9, 0]))
    def sent(self, to: list[str], session: str, priority: int) -> None:
        self.send(to, session, priority)

    @rule(agent=agents, how=st.sampled_from(["", *ENDINGS]))
    def a_worker_is_free(self, agent: str, how: str) -> None:
        self.turn(agent, how)

    @rule(agent=agents, which=mostly_newest, what=st.sampled_from(WORKERS))
    def something_befalls_a_worker(self, agent: str, which: int, what: str) -> None:
        getattr(self, what)(agent, which)

    @precondition(lambda self: self.model.log)
    @rule(which=st.integers(0, 9), what=st.sampled_from(["cancel", "cancel_now", "replay"]))
    def a_person_decides(self, which: int, what: str) -> None:
        known = list(self.model.log)
        dispatch_id = known[-1 - which % len(known)]
        if what == "replay":
            self.replay(dispatch_id)
        else:
            self.cancel(dispatch_id, what == "cancel_now")

    @rule(agent=agents, pause=st.sampled_from([True, False, False]))
    def pause_or_resume(self, agent: str, pause: bool) -> None:
        if pause:
            self.model.paused.add(agent)
            operations.pause(self.books.ledger, agent)
        else:
            self.model.paused.discard(agent)
            operations.resume(self.books.ledger, agent)
            self.expect_a_wakeup_each(agent)

    @rule(seconds=st.sampled_from([0, 10, 10, 20, 20, 30, 100, 250]), sweep=st.booleans())
    def beat(self, seconds: int, sweep: bool) -> None:
        self.model.advance(seconds)
        self.store.client.eval(ADVANCE, 0, seconds * 1000)
        self.model.reclaim()
        self.books.reclaim()
        for agent in AGENTS:
            self.expect_a_wakeup_each(agent)
        if sweep:
            self.model.sweep()
            self.books.sweep()

    @rule(seconds=st.sampled_from([10, 20, 100, 500]))
    def time_passes(self, seconds: int) -> None:
        """While beat stands still."""
        self.model.advance(seconds)
        self.store.client.eval(ADVANCE, 0, seconds * 1000)

    @rule(agent=agents, replies=st.booleans(), which=recent)
    def messages_get_lost(self, agent: str, replies: bool, which: int) -> None:
        """Lose wake-ups, or the answers of scripts; then a sender sends again."""
        self.store.client.delete(keys.queue(agent))
        self.store.loses_replies = replies
        if self.events:
            self.accept(self.events[-1 - which % len(self.events)])


def run(
    kind: type[Zombies],
    server: Valkey,
    patches: Patches,
    routes: RoutesConfig | None = None,
    **options: Any,
) -> None:
    of_this_run = {"server": server, "patches": patches, "routes": routes or RoutesConfig()}
    machine = type("Machine", (kind,), of_this_run)
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None,
            suppress_health_check=list(HealthCheck),
            stateful_step_count=40,
            print_blob=True,
            **options,
        ),
    )


def test_the_scripts_do_what_the_model_does(valkey: Valkey) -> None:
    run(Fleet, valkey, {}, max_examples=60)


def test_they_do_where_a_dead_member_cancels_the_others(valkey: Valkey) -> None:
    run(Fleet, valkey, {}, RoutesConfig(on_member_failure="cancel"), max_examples=30)


def test_without_the_fence_the_machine_fails(valkey: Valkey) -> None:
    """The machine would notice: the same run finds a ledger that lets old holders write."""
    unfenced = {
        "commit": (("or record.fence ~= fence\n  or not newest(agent, fence, ARG.lease)", ""),)
    }
    with pytest.raises(AssertionError):
        run(
            Zombies,
            valkey,
            unfenced,
            max_examples=300,
            phases=[Phase.generate],
            report_multiple_bugs=False,
        )
