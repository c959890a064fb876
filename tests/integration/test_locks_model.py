"""The lock scripts against a model: time passes at any moment, every question comes twice.

What the model says: who holds, who stands in line, who of those was heard of lately. A hold's end
and a waiter's silence are written into the store, so a run of hours takes a second.
"""

from typing import Any, Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from fleet.locks import calls
from fleet.locks.calls import (
    LockAcquireCall,
    LockCalls,
    LockReleaseCall,
    LockRenewCall,
    calls_of,
)
from fleet.store import Store, keys
from fleet.store.script import ScriptCall, script_source
from fleet.store.wire import Script
from tests.fixtures.leaks import undeclared
from tests.fixtures.locks import end, held_by, in_line, silence

LOCK = "test:model"
TTL_MS = 60_000
KEPT_MS = 60_000


class Lock(RuleBasedStateMachine):
    """One lock, asked for by turns of a session, by readers or by writers."""

    store: Store
    calls: LockCalls
    #: Which groups ask, and how.
    kinds: list[tuple[str, str]]

    asking: Bundle[str] = Bundle("asking")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.kind: dict[str, tuple[str, str]] = {}
        self.place: dict[str, int] = {}
        self.tokens: dict[str, int] = {}
        self.holds: list[str] = []
        self.line: list[str] = []
        self.heard: set[str] = set()
        self.gone: set[str] = set()
        self.newest = 0

    @initialize()
    def empty(self) -> None:
        self.store.client.flushall()

    @rule(target=asking, kind=st.integers(0, 2))
    def arrive(self, kind: int) -> str:
        self.count += 1
        group, manner = self.kinds[kind % len(self.kinds)]
        name = f"id{self.count}"
        self.kind[name] = (group or name, manner)
        self.ask(name)
        return name

    @rule(name=asking)
    def ask(self, name: str) -> None:
        expected = self.expected(name)
        answer = self.question(name)
        assert answer[0] == expected, f"{name} was answered {answer}"
        again = self.question(name)
        if expected == 1:
            assert again[:2] == answer[:2], "a holder that asks again has the same token"
        else:
            assert again[:2] == answer[:2], "a waiter that asks again has the same place"

    def question(self, name: str) -> Any:
        group, manner = self.kind[name]
        place = self.place.get(name, 0)
        answer = self.calls.call(
            LockAcquireCall(
                lock=LOCK,
                id=name,
                group=group,
                manner=manner,
                ttl_ms=TTL_MS,
                place=place,
                keep_ms=KEPT_MS,
            )
        )
        if answer[0] == 1:
            self.took(name, answer[1])
        elif answer[0] == 0:
            self.waits(name, answer[1])
        return answer

    def renewed(self, name: str) -> int:
        return self.calls.call(LockRenewCall(lock=LOCK, id=name, ttl_ms=TTL_MS))

    def released(self, name: str, refuse_ms: int | Literal[""] = "") -> int:
        return self.calls.call(LockReleaseCall(lock=LOCK, id=name, refuse_ms=refuse_ms))

    def expected(self, name: str) -> int:
        if name in self.gone:
            return -1
        if name in self.holds:
            return 1
        group, manner = self.kind[name]
        free = not self.holds
        shared = not free and self.kind[self.holds[0]][0] == group
        if shared and manner == "joins":
            return 1
        before = [other for other in self.line if other in self.heard and other != name]
        if name in self.place:
            before = [other for other in before if self.place[other] < self.place[name]]
        return int((free or shared) and not before)

    def took(self, name: str, token: int) -> None:
        if name in self.holds:
            assert token == self.tokens[name]
            return
        if self.holds:
            assert token == self.tokens[self.holds[0]], "a group has one token"
        else:
            assert token > self.newest, "the token grows with each group"
        self.newest = max(self.newest, token)
        self.tokens[name] = token
        self.holds.append(name)
        self.leave_line(name)

    def waits(self, name: str, place: int) -> None:
        if name in self.place:
            assert place == self.place[name]
        else:
            assert all(place > other for other in self.place.values())
        self.place[name] = place
        self.heard.add(name)
        self.line = sorted({*self.line, name}, key=self.place.__getitem__)

    def leave_line(self, name: str) -> None:
        self.line = [other for other in self.line if other != name]
        self.heard.discard(name)

    @rule(name=asking)
    def renew(self, name: str) -> None:
        assert self.renewed(name) == int(name in self.holds)

    @rule(name=consumes(asking))
    def release(self, name: str) -> None:
        """Given back by a holder, given up by a waiter; a late question changes nothing then."""
        holds = name in self.holds
        refuse: Literal[60_000, ""] = "" if holds else 60_000
        assert self.released(name, refuse) == int(holds)
        assert self.released(name, refuse) == 0
        self.forget(name)
        if not holds:
            self.gone.add(name)
            self.ask(name)

    @rule(name=asking)
    def give_up(self, name: str) -> None:
        """Wherever it is by now."""
        holds = name in self.holds
        assert self.released(name, 60_000) == int(holds)
        self.forget(name)
        self.gone.add(name)
        self.ask(name)

    @rule(name=asking, speaks=st.booleans())
    def outlive(self, name: str, speaks: bool) -> None:
        """A holder's time to live passes; it never holds again unless it asks anew."""
        if name in self.holds:
            end(self.store, LOCK, name)
            self.forget(name)
            if speaks:
                assert self.renewed(name) == 0
                assert self.released(name) == 0

    @rule(name=asking)
    def fall_silent(self, name: str) -> None:
        """A waiter is not heard of; it may be skipped and come back to its old place."""
        if name in self.line:
            silence(self.store, name)
            self.heard.discard(name)

    def forget(self, name: str) -> None:
        self.holds = [other for other in self.holds if other != name]
        self.leave_line(name)

    @invariant()
    def one_group(self) -> None:
        assert len({self.kind[name][0] for name in self.holds}) <= 1

    @invariant()
    def as_the_store_says(self) -> None:
        living = {name for name, till in held_by(self.store, LOCK).items() if till > 1}
        assert living == set(self.holds)
        line = in_line(self.store, LOCK)
        assert [name for name in line if name in self.heard] == [
            name for name in self.line if name in self.heard
        ]

    @invariant()
    def somebody_is_woken(self) -> None:
        """A free lock with a living line: the first has been rung for, or asks within its slice."""
        if not self.holds and (first := next((n for n in self.line if n in self.heard), None)):
            rung = self.store.client.exists(keys.lock_wake(first))
            assert rung or self.store.client.pttl(f"fleet:lock:ticket:{first}") > 0

    def teardown(self) -> None:
        assert not undeclared(self.store.client)


@pytest.mark.parametrize(
    "kinds",
    [
        [("turn-a", "joins"), ("turn-b", "joins"), ("turn-c", "joins")],
        [("readers", "queues"), ("", "alone"), ("readers", "queues")],
    ],
    ids=["session", "turn"],
)
def test_every_answer_is_the_models(
    store: Store, kinds: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Here only the model lets time pass, however slow the machine is.
    patient: dict[type[ScriptCall[Any]], Script] = {
        kind: Script(script_source(kind).replace("CALL_MS = 250", "CALL_MS = 600000"))
        for kind in (LockAcquireCall, LockRenewCall, LockReleaseCall)
    }
    monkeypatch.setattr(calls, "_script", patient.__getitem__)
    machine = type("Machine", (Lock,), {"store": store, "calls": calls_of(store), "kinds": kinds})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=50, stateful_step_count=30, deadline=None)
    )
