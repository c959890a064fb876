"""A replica is promoted that never saw the last writes: an old holder writes beside no new one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet.errors import Fenced
from fleet.ledger import Claim
from fleet.store import Store, keys, open_store
from fleet.turn import callbacks
from fleet.turn.live_text import LiveText
from fleet.worker.lease import Lease
from tests.fixtures.ledger import OUTAGE, Books, contents, settings_for
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey


class Servers:
    """A primary and its replica, until the replica is promoted behind the primary's back."""

    def __init__(self, folder: Path) -> None:
        self.primary, self.replica = (
            Valkey(_made(folder / name)).start() for name in ("primary", "replica")
        )
        self._stores: list[Store] = []
        self.before = self.books(self.primary)
        self.after = self.books(self.replica)
        self.after.store.client.replicaof("127.0.0.1", str(self.primary.port))
        wait_until(lambda: self._link() == "up")

    def books(self, server: Valkey) -> Books:
        store = open_store(server.url)
        self._stores.append(store)
        return Books(store, settings_for("a", "b"))

    def replicated(self) -> None:
        """Return once the replica has all writes of the primary."""
        # Not WAIT, which waits for the writes of its own connection, and scripts have another.
        written = self.before.store.client.info("replication")["master_repl_offset"]
        client = self.after.store.client
        wait_until(lambda: client.info("replication")["slave_repl_offset"] >= written)

    def promote(self) -> None:
        """From now on the replica gets no write of the primary's, and takes its own."""
        self.replicated()
        self.after.store.client.replicaof("NO", "ONE")

    def close(self) -> None:
        for store in self._stores:
            store.close()
        self.primary.kill()
        self.replica.kill()

    def _link(self) -> str:
        return str(self.after.store.client.info("replication")["master_link_status"])


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path)
    yield made
    made.close()


def follow(lease: Lease, books: Books) -> None:
    """The holder's connections go to the promoted server now, as a name or a proxy moves them."""
    lease.forget_beacon()
    lease._store, lease._beacon = books.store, None


@pytest.fixture
def split(servers: Servers) -> tuple[Lease, Claim, Lease]:
    """A holder with its claim, which the promoted server knows nothing of; and the holder there."""
    servers.before.held().release()
    servers.before.accept("a", "once")
    servers.promote()
    old = servers.before.held()
    claim = servers.before.claimed(old)
    new = servers.after.held()
    assert (old.fence, new.agent) == (2, old.agent)
    follow(old, servers.after)
    return old, claim, new


def test_no_token_is_given_twice(split: tuple[Lease, Claim, Lease]) -> None:
    old, _, new = split
    assert new.fence > old.fence


LATE: list[Callable[[Books, Lease, Claim], object]] = [
    lambda books, lease, claim: books.claim(lease),
    lambda books, lease, claim: books.ledger.step(claim, "1", "{}"),
    lambda books, lease, claim: books.complete(claim, "of the old holder"),
    lambda books, lease, claim: books.fail(claim, OUTAGE),
    lambda books, lease, claim: callbacks.get(books.store, claim, 1),
]


@pytest.mark.parametrize("same_token", [False, True])
def test_the_old_holder_writes_nothing(
    servers: Servers, split: tuple[Lease, Claim, Lease], same_token: bool
) -> None:
    old, claim, new = split
    if same_token:
        give_again(servers.after, new, old.fence)
    running = servers.after.claimed(new)
    assert (running.dispatch_id, running.attempt) == (claim.dispatch_id, claim.attempt)

    def refused() -> None:
        before = contents(servers.after.store)
        for write in LATE:
            with pytest.raises(Fenced):
                write(servers.after, old, claim)
        assert contents(servers.after.store) == before

    refused()
    assert servers.after.ledger.step(running, "1", "{}") == ""
    assert servers.after.complete(running) == "completed"
    assert servers.after.ends(running.dispatch_id) == ["dispatch_completed"]
    # Nor does it take the answer of the new holder's commit for its own.
    refused()


def test_the_old_holder_neither_publishes_text_nor_releases(
    servers: Servers, split: tuple[Lease, Claim, Lease]
) -> None:
    old, claim, new = split
    give_again(servers.after, new, old.fence)
    running = servers.after.claimed(new)
    text = LiveText(servers.after.store, claim)
    text.publish(1, "of the old holder")
    text.close()
    assert not servers.after.store.client.exists(f"fleet:speech:{running.dispatch_id}")
    old.release()
    assert servers.after.state(running.dispatch_id) == "active"
    assert new.renew()


def test_the_old_holder_never_gets_its_lease_back(
    servers: Servers, split: tuple[Lease, Claim, Lease]
) -> None:
    old, _, new = split
    give_again(servers.after, new, old.fence)
    servers.after.store.client.delete(keys.lease("a"))
    assert not old.renew()


def test_a_token_that_went_back_is_noticed(
    servers: Servers, split: tuple[Lease, Claim, Lease]
) -> None:
    """The holder that shows it ends what runs under the same one, and the next is above both."""
    old, _, new = split
    give_again(servers.after, new, old.fence)
    assert not old.renew()
    (alert,) = servers.after.bus("alert")
    assert (alert.fields["name"], alert.fields["agent"]) == ("token_repeated", "a")
    assert not new.renew()
    servers.after.store.client.delete(keys.lease("a"))
    assert servers.after.held().fence > old.fence


def test_a_restarted_server_may_have_lost_tokens_too(tmp_path: Path) -> None:
    server = Valkey(tmp_path, durable=True).start()
    store = open_store(server.url)
    books = Books(store, settings_for("a"))
    first = books.held()
    first.release()
    # As a power cut does where the server does not wait for the disk.
    lost = first.fence + 1
    server.kill()
    server.start()
    assert books.held().fence > lost
    store.close()
    server.kill()


def give_again(books: Books, lease: Lease, fence: int) -> None:
    """As where the promoted server counted on from what it knew: both have the same token."""
    client = books.store.client
    client.hset("fleet:fences", lease.agent, fence)
    client.hset(keys.lease(lease.agent), "fence", fence)
    lease.fence = fence
