"""The reader/writer lock of a turn: its reads in parallel, its writes alone.

    lock = TurnRWLock(store, turn=turn_id)
    with lock.read(): ...
    with lock.write() as hold:
        write(..., fence=hold.token)

All stand in one line. Readers who are next to each other in it go in together; a writer waits for
the readers in flight, and whoever comes after a waiting writer waits behind it. So neither starves.
Each reader and each writer has a hold that ends by itself, so no crash wedges the turn, and one who
gives back late gives back nothing of another's.
"""

from fleet.locks.calls import calls_of
from fleet.locks.handle import LockHandle, Terms
from fleet.locks.session import checked
from fleet.store import Store, keys

_READERS = "readers"


class TurnRWLock:
    """Fair, fenced, renewed while held; not re-entrant. Safe to share between threads.

    A writer's token is greater than that of all before it; readers together have one.
    """

    def __init__(
        self, store: Store, turn: str, ttl_s: float = 60.0, acquire_timeout_s: float = 5.0
    ) -> None:
        checked(turn=turn, ttl_s=ttl_s, acquire_timeout_s=acquire_timeout_s)
        self.turn = turn
        self.acquire_timeout_s = acquire_timeout_s
        lock, title = keys.lock_name("turn", turn), f"The turn {turn!r}"
        calls = calls_of(store)
        self._read = Terms(calls, lock, _READERS, "queues", ttl_s, f"{title} (read)")
        self._write = Terms(calls, lock, "", "alone", ttl_s, f"{title} (write)")

    def read(self, timeout_s: float | None = None) -> LockHandle:
        """A hold shared with other readers, to be entered by `with` or `async with`."""
        return self._hold(self._read, timeout_s)

    def write(self, timeout_s: float | None = None) -> LockHandle:
        """A hold shared with nobody, to be entered by `with` or `async with`."""
        return self._hold(self._write, timeout_s)

    def _hold(self, terms: Terms, timeout_s: float | None) -> LockHandle:
        wait_s = self.acquire_timeout_s if timeout_s is None else timeout_s
        return LockHandle(terms, wait_s)
