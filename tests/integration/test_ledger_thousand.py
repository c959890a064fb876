"""A thousand sessions over twenty agents: each in order, one turn of it at a time."""

import random
import threading
import time
from collections import defaultdict

import pytest

from fleet.ledger import Claim
from fleet.store import Store
from tests.fixtures.ledger import OUTAGE, Books, settings_for

AGENTS = tuple(f"agent{number}" for number in range(20))
SESSIONS, EVENTS = 1000, 3
#: Attempts that fail; each holds its session back and nothing else.
FAILING = 0.02
#: Far more than it takes; a hang must end.
TIMEOUT_S = 100.0


class Witness:
    """Everything that all workers saw, in the order they saw it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.running: dict[str, str] = {}  #: session -> agent
        self.overlaps: list[tuple[str, str, str]] = []
        self.turns: dict[str, list[str]] = defaultdict(list)  #: session -> texts that completed
        self.told: dict[str, list[list[str]]] = defaultdict(list)  #: session -> each turn's history
        self.failed = 0

    def begins(self, claim: Claim) -> None:
        session = str(claim.event.session)
        with self._lock:
            other = self.running.setdefault(session, claim.agent)
            if other != claim.agent:
                self.overlaps.append((session, other, claim.agent))

    def ends(self, claim: Claim, *, completed: bool) -> None:
        """Before the ledger says so: from then on another may begin."""
        session = str(claim.event.session)
        with self._lock:
            del self.running[session]
            if completed:
                self.turns[session].append(claim.text)
                self.told[session].append([said.text for said in claim.history])
            else:
                self.failed += 1

    @property
    def completed(self) -> int:
        return sum(map(len, self.turns.values()))


def work(books: Books, agent: str, witness: Witness, over: threading.Event) -> None:
    """The work of an agent's worker, without its process."""
    dice = random.Random(agent)
    lease = books.held(agent)
    while not over.is_set():
        claim = books.claim(lease)
        if claim is None:
            time.sleep(0.01)
            continue
        witness.begins(claim)
        fails = claim.attempt == 1 and dice.random() < FAILING
        witness.ends(claim, completed=not fails)
        if fails:
            books.fail(claim, OUTAGE)
        else:
            books.complete(claim, f"re {claim.text}")
    lease.forget_beacon()


@pytest.mark.timeout(TIMEOUT_S + 30)
def test_a_thousand_sessions_over_twenty_agents(store: Store) -> None:
    retry = {"attempts": 3, "backoff_s": 0, "min_age_s": 0}
    books = Books(store, settings_for(*AGENTS, retry=retry, max_pending=10_000))
    witness, over = Witness(), threading.Event()
    dice = random.Random(4711)
    to_come = [f"s{number}" for number in range(SESSIONS) for _ in range(EVENTS)]
    dice.shuffle(to_come)
    sent: dict[str, list[str]] = defaultdict(list)
    workers = [
        threading.Thread(target=work, args=(books, agent, witness, over)) for agent in AGENTS
    ]
    try:
        for worker in workers:
            worker.start()
        for start in range(0, len(to_come), 100):
            batch = []
            for session in to_come[start : start + 100]:
                text = f"{session}.{len(sent[session])}"
                sent[session].append(text)
                target = dice.choice(AGENTS)
                batch.append({"to": target, "text": text, "session": session})
            books.intake.accept_batch(batch)
        give_up = time.monotonic() + TIMEOUT_S
        while witness.completed < len(to_come) and time.monotonic() < give_up:
            books.reclaim()
            time.sleep(0.1)
    finally:
        over.set()
        for worker in workers:
            worker.join(10)
    assert not witness.overlaps
    assert witness.turns == sent
    for session, told in witness.told.items():
        before = [line for text in sent[session] for line in (text, f"re {text}")]
        assert told == [before[: 2 * place] for place in range(EVENTS)]
    assert witness.failed > 0
    assert store.client.zcard("fleet:ended") == len(to_come)
    left = {str(key) for key in store.client.scan_iter("fleet:*", count=1000)}
    assert not [key for key in left if key.startswith(("fleet:session:", "fleet:due:"))]
    assert not left & {"fleet:sessions", "fleet:retry", "fleet:deadlines"}
