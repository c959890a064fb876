"""Whatever happens in whatever order: an outcome is told, once, and nothing is left over."""

import random
from collections import Counter
from typing import Any

import pytest

from fleet.config.settings import Settings, parse
from fleet.delivery.claims import AttemptResult, claim, report
from fleet.delivery.delivery_worker import DeliveryWorker, due
from fleet.errors import FleetError
from fleet.intake.intake import LOCAL, UPSTREAM
from fleet.ledger import Ending, State, operations
from fleet.store import Store, keys
from fleet.worker.lease import Lease
from tests.fixtures.ledger import FOR_GOOD, OUTAGE, TERMINAL_TYPES, Books
from tests.fixtures.processes import wait_until

ACTS = 150
KEEP_MS = 600_000
WEBHOOK = {"webhook": "https://crm.example/", "secret": "sixteen bytes or more"}
ENDINGS = [
    *[Ending(answer="the answer")] * 3,
    *(Ending(failure=FOR_GOOD), Ending(failure=OUTAGE), Ending(cancelled="enough")),
]
SAMPLES = [
    *[AttemptResult(kind="ack", reason="HTTP 204")] * 2,
    AttemptResult(kind="unverified", reason="no answer"),
    AttemptResult(kind="failed", reason="HTTP 500"),
]


def settings() -> Settings:
    agent: dict[str, Any] = {"runner": "python", "python": "nobody:nothing", "max_pending": 6}
    retry = {"attempts": 2, "backoff_s": 0, "min_age_s": 0}
    agents: dict[str, dict[str, Any]] = {
        "a": {"deliver": ["crm", "to_b"], "on_busy": "coalesce"},
        "b": {"deliver": ["bad_news", "to_a"], "overflow": "drop_oldest"},
        "c": {"on_busy": "interrupt"},
    }
    deliveries = {
        "crm": WEBHOOK,
        "bad_news": {**WEBHOOK, "on": ["dead", "dropped"]},
        "to_a": {"agent": "a", "on": ["completed"]},
        "to_b": {"agent": "b"},
    }
    tables = {
        "agents": {name: {**agent, "retry": retry, **more} for name, more in agents.items()},
        "deliveries": deliveries,
        "chains": {"c": {"stages": ["c", "b"], "deliver": ["crm"], "on_failure": "skip"}},
        "sessions": {"coalesce_window_s": 0.001, "coalesce_max_s": 0.001},
        "routes": {"max_hops": 2},
    }
    return parse(tables)


class Life:
    """A ledger to which things happen."""

    def __init__(self, store: Store, seed: int) -> None:
        self.books = Books(store, settings())
        self.store, self.client = store, store.client
        self.chance = random.Random(seed)
        self.leases: dict[str, Lease] = {name: self.books.held(name) for name in "abc"}
        self.delivery_worker = DeliveryWorker(store, self.books.settings, lambda: self.books.intake)

    def accept(self) -> None:
        to = self.chance.choice([["a"], ["a"], ["b"], ["a", "b", "c"], ["chain:c"]])
        session = self.chance.choice([{}, {"session": "s"}, {"session": "t"}])
        event = {"to": to, "text": "hello", **session}
        try:
            self.books.intake.accept(event, self.chance.choice([LOCAL, LOCAL, UPSTREAM]))
        except FleetError:
            return

    def turn(self) -> None:
        claim = self.books.claim(self.leases[self.chance.choice("abc")])
        if claim is not None and self.chance.random() < 0.9:
            self.books.ledger.commit(claim, self.chance.choice(ENDINGS))

    def step_in(self) -> None:
        ids: Any = self.client.zrange(keys.INDEX, 0, -1)
        if not ids:
            return
        one, books = self.chance.choice(ids), self.books
        try:
            if self.chance.random() < 0.5:
                operations.replay(books.ledger, books.settings, one)
            else:
                operations.cancel(books.ledger, books.settings, one, "enough", now=True)
        except FleetError:
            return

    def expire(self) -> None:
        waiting: Any = self.client.zrange("fleet:deadlines", 0, -1)
        if waiting:
            self.client.zadd("fleet:deadlines", {self.chance.choice(waiting): 0})

    def repair(self) -> None:
        self.books.reclaim()
        due(self.store, self.books.settings)

    def deliver(self) -> None:
        places = self.listed("fleet:deliveries")
        if not places:
            return
        dispatch_id, target = self.chance.choice(places)
        self.client.delete(f"fleet:target:{target}")
        if target.startswith("to_"):
            self.delivery_worker._try(dispatch_id, target)
            return
        told = claim(self.store, dispatch_id, target, 5.0, KEEP_MS)
        if told is None:  # an earlier sender died with it
            self.client.hset(keys.delivery(dispatch_id), f"{target}|until_ms", "0")
        elif self.chance.random() < 0.9:
            report(self.store, told, self.chance.choice(SAMPLES), KEEP_MS)

    def act(self) -> None:
        acts = [self.accept] * 3 + [self.turn] * 5 + [self.deliver] * 5
        self.chance.choice([*acts, self.step_in, self.expire, self.repair])()

    def listed(self, key: str) -> list[tuple[str, str]]:
        found: Any = self.client.zrange(key, 0, -1)
        return [(place.split()[0], place.split()[1]) for place in found]

    def records(self) -> list[tuple[dict[str, str], dict[str, str]]]:
        """Each dispatch, with its delivery."""
        ids: Any = self.client.zrange(keys.INDEX, 0, -1)
        pipe = self.client.pipeline(transaction=False)
        for one in ids:
            pipe.hgetall(keys.dispatch(one))
            pipe.hgetall(keys.delivery(one))
        found = pipe.execute()
        return list(zip(found[::2], found[1::2], strict=True))

    def check(self) -> None:
        open_ones = []
        counted: dict[str, int] = {}
        for record, fields in self.records():
            targets = [
                name.partition("|")[0]
                for name, state in fields.items()
                if name.endswith("|state") and state == "open"
            ]
            open_ones += [(record["id"], target) for target in targets]
            assert int(fields.get("|open", 0)) == len(targets), (record, fields)
            waits = bool(targets) and fields["|outcome"] == "completed" and "|chain" not in fields
            assert (record["state"] == State.ANNOUNCING) == waits, (record, fields)
            if State(record["state"]).terminal and record["agent"] == "a":
                assert "chain_id" in record or fields, "nobody is told"
            states = [record["state"]]
            if record["state"] == "completed" and record.get("verification") == "timeout_fallback":
                states.append("unverified")
            for state in states:
                name = f"{record['agent']}|{state}"
                counted[name] = counted.get(name, 0) + 1
        newest = [place for place in self.listed("fleet:deliveries") if "." not in place[0]]
        assert sorted(newest) == sorted(open_ones)
        counts: Any = self.client.hgetall(keys.COUNTS)
        assert {name: int(number) for name, number in counts.items() if int(number)} == counted

    def settled(self) -> bool:
        for lease in self.leases.values():
            self.books.reclaim()
            if claim := self.books.claim(lease):
                self.books.complete(claim)
        for _ in self.listed("fleet:deliveries"):
            self.deliver()
        live = [one for one, _ in self.records() if not State(one["state"]).terminal]
        return not live and not self.listed("fleet:deliveries")


@pytest.mark.parametrize("seed", range(2))
def test_every_outcome_is_told_and_nothing_is_left(store: Store, seed: int) -> None:
    life = Life(store, seed)
    for _ in range(ACTS):
        life.act()
        life.check()
    wait_until(life.settled)
    life.check()
    ends: dict[str, list[str]] = {}
    told: Counter[tuple[str, str]] = Counter()
    for entry in life.books.bus(*TERMINAL_TYPES, "delivery_verified"):
        one = entry.fields["dispatch_id"]
        if entry.type == "delivery_verified":
            told[one, entry.fields["name"]] += 1
        else:
            ends.setdefault(one, []).append(entry.type)
    for record, _ in life.records():
        generation = int(record["generation"])
        assert len(ends[record["id"]]) <= generation
        assert ends[record["id"]][-1] == f"dispatch_{record['state']}"
        assert all(n <= generation for (one, _), n in told.items() if one == record["id"])
