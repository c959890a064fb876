"""Chains against the model of `tests.fixtures.chain_model`: any acts in any order.

After each act the store holds what the model holds, and a chain that runs has somebody to go on.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.ledger import Claim, State, bus, operations
from fleet.ledger.operations import NotPossible
from fleet.store import keys, open_store
from routing import Verdict
from tests.fixtures.chain_model import ENDS, Model
from tests.fixtures.chains import AGENTS, Run, settings_with
from tests.fixtures.leaks import undeclared
from tests.fixtures.ledger import FOR_GOOD, Books
from tests.fixtures.machine import ADVANCE, Flaky
from tests.fixtures.valkey import Valkey

#: Longer than a person has, shorter than an agent.
WAIT_S = 1000

stages = st.sampled_from(
    [
        "archie",
        "gem",
        "human:ops",
        "@reviewers",
        {"agent": "@reviewers", "quorum": 1},
        {"agent": "@reviewers", "quorum": 3},
    ]
)
chains = st.fixed_dictionaries(
    {
        "stages": st.lists(stages, min_size=1, max_size=3),
        "on_failure": st.sampled_from(["stop", "skip"]),
        "max_revisions": st.integers(0, 2),
        "session": st.sampled_from(["", "s"]),
    }
)
turns = st.tuples(
    st.just("turn"),
    st.sampled_from(AGENTS),
    st.sampled_from(["approve", "fine", "reject", "revise", "revise", "dead", "", "", "lost"]),
)
decisions = st.tuples(st.just("decide"), st.sampled_from(["approve", "approve", "reject"]))
others = st.one_of(
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.sampled_from(["replay", "wait"])),
    st.tuples(st.just("lost replies"), st.booleans()),
)
acts = st.lists(st.one_of(turns, turns, turns, decisions, others), min_size=10, max_size=40)


class Play:
    """One chain, its agents and people, and the model beside it."""

    def __init__(self, store: Flaky, chain: dict[str, Any], session: str) -> None:
        self.store = store
        chosen = settings_with(*chain.pop("stages"), **chain, human_deadline_s=WAIT_S / 2)
        self.books = Books(store, chosen)
        fields = {"session": session} if session else {}
        self.run = Run(self.books, id="1", ttl_s=1e7, **fields)
        self.model = Model(chosen.chain("release"))
        self.claims: dict[str, Claim] = {}
        self.seen = "0-0"
        self.ids: dict[str, None] = {}

    def turn(self, agent: str, how: str) -> None:
        """A turn that ends so; without a `how` it is not finished yet."""
        claim = self.claims.pop(agent, None)
        if claim is None or how == "lost":
            claim = self.books.claim(self.run.leases[agent])
        if claim is None:
            return
        if how in ("", "lost"):
            self.claims[agent] = claim
        elif how == "dead":
            self.books.fail(claim, FOR_GOOD)
        else:
            self.books.complete(claim, how)

    def decide(self, verdict: str) -> None:
        for dispatch_id in self.ids:
            if self.books.state(dispatch_id) == "parked":
                operations.decide(
                    *(self.books.ledger, self.books.settings, dispatch_id),
                    Verdict.APPROVE if verdict == "approve" else Verdict.REJECT,
                    by="ann",
                    reason="x",
                )

    def cancel(self, which: int) -> None:
        ids = list(self.ids)
        with suppress(NotPossible):
            operations.cancel(
                self.books.ledger, self.books.settings, ids[-1 - which % len(ids)], "no"
            )

    def replay(self) -> None:
        """Every dead letter."""
        for dispatch_id in self.ids:
            with suppress(NotPossible):
                operations.replay(self.books.ledger, self.books.settings, dispatch_id)

    def wait(self) -> None:
        self.store.client.eval(ADVANCE, 0, WAIT_S * 1000)
        self.books.reclaim()

    def check(self) -> None:
        """The invariants."""
        for entry in bus.read(self.books.store, self.seen, count=10_000):
            self.seen = entry.id
            if "chain_id" not in entry.fields or entry.type == "alert":
                continue
            if "dispatch_id" in entry.fields:
                self.ids.setdefault(str(entry.fields["dispatch_id"]))
            self.model.hear(entry)
        records = {i: self.books.record(i) for i in self.ids}
        live = {i: r for i, r in records.items() if not State(r["state"]).terminal}
        chain, model = self.run.chain, self.model
        assert (chain["state"], chain["stage"], chain["round"]) == (
            *(model.state, str(model.stage), str(model.round)),
        )
        current = [
            record
            for record in live.values()
            if (record["chain_stage"], record["round"]) == (chain["stage"], chain["round"])
        ]
        # A chain that runs has somebody to go on; one that ended leaves nobody waiting.
        assert bool(current) or model.state != "running"
        assert model.state == "running" or all(r["state"] == "active" for r in live.values())
        event = keys.event(keys.event_digest(self.run.key))
        assert self.store.client.hget(event, "open") == str(len(live))
        for dispatch_id, record in records.items():
            ends = [kind for kind in self.books.ends(dispatch_id) if kind in ENDS]
            assert len(ends) == int(record["generation"]) - (dispatch_id in live)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(chains, acts)
def test_a_chain_does_what_the_model_does(
    valkey: Valkey, chain: dict[str, Any], script: list[tuple[Any, ...]]
) -> None:
    store = Flaky(open_store(valkey.url).client, {})
    store.client.flushall()
    play = Play(store, chain, chain.pop("session"))
    doing: dict[str, Callable[..., None]] = {
        "turn": play.turn,
        "decide": play.decide,
        "cancel": play.cancel,
        "replay": play.replay,
        "wait": play.wait,
        "lost replies": lambda lost: setattr(store, "loses_replies", lost),
    }
    try:
        play.check()
        for name, *arguments in script:
            doing[name](*arguments)
            play.check()
        assert undeclared(store.client) in ([], ["test:ahead_ms: not in the table"])
    finally:
        for lease in play.run.leases.values():
            lease.forget_beacon()
        store.close()
