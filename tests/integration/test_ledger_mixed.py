"""Every `on_busy` in the same sessions, with replies that get lost and workers that go."""

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.config.settings import Settings, parse
from fleet.errors import SessionBusy
from fleet.ledger import operations
from fleet.store import keys, open_store
from tests.fixtures.leaks import undeclared
from tests.fixtures.ledger import FOR_GOOD, OUTAGE, Books
from tests.fixtures.machine import ADVANCE, Flaky
from tests.fixtures.valkey import Valkey

MODES = {"queue": "enqueue", "one": "reject", "stop": "interrupt", "join": "coalesce"}
LIVE = {"queued", "active", "retrying", "parked"}


def configuration() -> Settings:
    retry = {"attempts": 2, "backoff_s": 0, "min_age_s": 0}
    common = {"runner": "python", "python": "nobody:nothing", "retry": retry}
    agents = {name: {**common, "on_busy": mode} for name, mode in MODES.items()}
    return parse({"agents": agents})


class World:
    """A ledger, a worker of each agent, and what must be true of them at any time."""

    def __init__(self, server: Valkey) -> None:
        self.store = Flaky(open_store(server.url).client, {})
        self.store.client.flushall()
        self.books = Books(self.store, configuration())
        self.leases = {agent: self.books.lease(agent, ttl_s=1e7) for agent in MODES}
        for lease in self.leases.values():
            lease.acquire()
        self.ids: list[str] = []

    def say(self, agents: list[str], session: str, priority: int) -> None:
        try:
            self.ids += self.books.accept(agents, session=session, priority=priority)
        except SessionBusy:
            assert "one" in agents

    def turn(self, agent: str, how: str) -> bool:
        claim = self.books.claim(self.leases[agent])
        if claim is None:
            return False
        if how == "done":
            self.books.complete(claim)
        elif how != "still":
            self.books.fail(claim, OUTAGE if how == "again" else FOR_GOOD)
        return True

    def stop_worker(self, agent: str) -> None:
        self.leases[agent].release()
        assert self.leases[agent].acquire()

    def decide(self, which: int, what: str) -> None:
        if not self.ids:
            return
        dispatch_id = self.ids[-1 - which % len(self.ids)]
        state = self.books.state(dispatch_id)
        if what == "replay" and state in ("dead", "retrying"):
            operations.replay(self.books.ledger, self.books.settings, dispatch_id)
        elif what != "replay" and state in LIVE:
            now = what == "cancel now"
            operations.cancel(self.books.ledger, self.books.settings, dispatch_id, "why", now=now)

    def wait(self, seconds: float) -> None:
        self.store.client.eval(ADVANCE, 0, int(seconds * 1000))
        self.books.reclaim()

    def check(self) -> None:
        records = [self.books.record(dispatch_id) for dispatch_id in self.ids]
        running = [record for record in records if record["state"] == "active"]
        assert len({record["session"] for record in running}) == len(running)
        assert len({record["agent"] for record in running}) == len(running)
        found: Any = self.store.client.hgetall(keys.COUNTS)
        counted = {name: int(number) for name, number in found.items() if int(number)}
        assert counted == Counter(f"{one['agent']}|{one['state']}" for one in records)
        one = Counter(r["session"] for r in records if r["agent"] == "one" and r["state"] in LIVE)
        replayed = any(int(record["generation"]) > 1 for record in records)
        assert replayed or all(number == 1 for number in one.values())
        for record in records:
            if first := record.get("joined_to"):
                assert record["state"] in ("queued", self.books.state(first), "cancelled")
            ended = len(self.books.ends(record["id"]))
            assert ended == int(record["generation"]) - (record["state"] in LIVE)

    def finish(self) -> None:
        """Let everything end, and see that nothing is left of it."""
        for _ in range(2 * len(self.ids) + 2):
            self.wait(10)
            while sum(self.turn(agent, "done") for agent in MODES):
                pass
        self.check()
        assert not [i for i in self.ids if self.books.state(i) in LIVE]
        left = {str(key) for key in self.store.client.scan_iter("fleet:*", count=1000)}
        assert not left & {keys.QUIET, "fleet:retry", "fleet:deadlines", "fleet:sessions"}
        assert not [key for key in left if key.startswith(("fleet:session:", "fleet:due:"))]
        assert undeclared(self.store.client) in ([], ["test:ahead_ms: not in the table"])

    def close(self) -> None:
        for lease in self.leases.values():
            lease.forget_beacon()
        self.store.close()


names = st.sampled_from(list(MODES))
acts = st.one_of(
    st.tuples(
        st.just("say"),
        st.lists(names, min_size=1, max_size=2, unique=True),
        st.sampled_from("st"),
        st.sampled_from([0, 9]),
    ),
    st.tuples(st.just("turn"), names, st.sampled_from(["done", "again", "dead", "still"])),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 10.0])),
    st.tuples(
        st.just("decide"), st.integers(0, 3), st.sampled_from(["cancel", "cancel now", "replay"])
    ),
    st.tuples(st.just("stop_worker"), names),
    st.tuples(st.just("loses_replies"), st.booleans()),
)


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.lists(acts, max_size=25))
def test_whatever_happens_each_ends_once_and_one_runs_at_a_time(
    valkey: Valkey, script: list[tuple[Any, ...]]
) -> None:
    world = World(valkey)
    for what, *how in script:
        if what == "loses_replies":
            world.store.loses_replies = how[0]
        else:
            getattr(world, what)(*how)
        world.check()
    world.store.loses_replies = False
    world.finish()
    world.close()
