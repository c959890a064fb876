"""The session lock: one turn of a session at a time, in the whole fleet.

    lock = SessionLock(store, session="chat-17", turn=turn_id)
    with lock:                      # waits in line; LockBusy after 5 s
        write(..., fence=lock.token)

The turn that has it gets it again at once, from any thread, process or host. Each of these holds
ends for itself: one that crashed keeps the lock no longer than its own time to live.
"""

from types import TracebackType
from typing import Self

from fleet.locks.calls import calls_of
from fleet.locks.errors import LockLost
from fleet.locks.handle import LockHandle, Terms
from fleet.store import Store, keys


class SessionLock:
    """Re-entrant by `turn`, fair, fenced, renewed while held. Safe to share between threads.

    `ttl_s` is how long a crashed holder keeps others out. Raises ValueError for an empty name or a
    time that is not positive.
    """

    def __init__(
        self,
        store: Store,
        session: str,
        turn: str,
        ttl_s: float = 60.0,
        acquire_timeout_s: float = 5.0,
    ) -> None:
        checked(session=session, turn=turn, ttl_s=ttl_s, acquire_timeout_s=acquire_timeout_s)
        self.session = session
        self.turn = turn
        self.acquire_timeout_s = acquire_timeout_s
        lock = keys.lock_name("session", session)
        self._terms = Terms(calls_of(store), lock, turn, "joins", ttl_s, f"The session {session!r}")
        self._holds: list[LockHandle] = []

    def hold(self, timeout_s: float | None = None) -> LockHandle:
        """One more hold, to be entered by `with` or `async with`."""
        wait_s = self.acquire_timeout_s if timeout_s is None else timeout_s
        return LockHandle(self._terms, wait_s)

    def acquire(self, timeout_s: float | None = None) -> int:
        """Wait for the lock; its token. Each acquire wants its own release.

        Raises LockBusy when it was not free in time, and BrokerUnavailable.
        """
        hold = self.hold(timeout_s)
        hold.enter()
        self._holds.append(hold)
        return hold.token

    def release(self) -> None:
        """Release the latest hold. Raises LockLost when it had ended before, or there is none."""
        if not self._holds:
            raise self._not_held()
        self._holds.pop().leave()

    def renew(self) -> None:
        """Another time to live for each hold. Raises LockLost and BrokerUnavailable."""
        if not self._holds:
            raise self._not_held()
        for hold in list(self._holds):
            hold.renew()

    def check(self) -> int:
        """Ask the store whether the lock is still held; the token. Raises LockLost."""
        self.renew()
        return self.token

    @property
    def count(self) -> int:
        """How many holds this object has."""
        return len(self._holds)

    @property
    def lost(self) -> bool:
        """True once a hold ended, or may have ended, before its release; asks nobody."""
        return any(hold.lost for hold in list(self._holds))

    @property
    def token(self) -> int:
        """The fencing token, which only grows from turn to turn of the session.

        Raises LockLost when the lock may have been lost, or is not held.
        """
        holds = list(self._holds)
        if not holds:
            raise self._not_held()
        return min(hold.token for hold in holds)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._holds.pop().__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        self._holds.append(await self.hold().__aenter__())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._holds.pop().__aexit__(kind, error, trace)

    def _not_held(self) -> LockLost:
        return LockLost(f"{self._terms.title} is not held.")


def checked(**given: str | float) -> None:
    """Raises ValueError naming the first argument that is empty or not positive."""
    for name, value in given.items():
        if isinstance(value, str):
            wrong = not value
        else:
            # A hold shorter than a few round trips is lost before it can be renewed.
            wrong = not value >= (0 if name == "acquire_timeout_s" else 0.05)
        if wrong:
            raise ValueError(f"{name}: {value!r} is empty or too small: set a larger value.")
