"""A worker without its lease: it holds no lock of the agent while it waits."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleet import runtime
from fleet.errors import BrokerUnavailable
from fleet.system.agent_lock import TurnLock
from fleet.worker import bootsteps


class SilentLease:
    """A lease of a store that does not answer."""

    agent = "a"

    def __init__(self) -> None:
        self.asked, self.store = 0, None

    def acquire(self) -> bool:
        self.asked += 1
        raise BrokerUnavailable("The broker does not answer.")


@pytest.mark.parametrize("closed", [True, False])
def test_the_lock_is_free_while_the_broker_is_away(
    closed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spooled events of the agent run then: the worker asks again at once."""
    lease, others, free = SilentLease(), TurnLock(tmp_path, "a"), list[bool]()

    def wait(_seconds: float) -> None:
        free.append(others.acquire())
        others.release()

    here: Any = SimpleNamespace(breaker=SimpleNamespace(closed=closed))
    monkeypatch.setattr(runtime, "current", lambda: here)
    monkeypatch.setattr(bootsteps, "close_breaker", lambda _lease: wait(0))
    monkeypatch.setattr("fleet.worker.bootsteps.time.sleep", wait)
    lock: Any = TurnLock(tmp_path, "a")
    stub: Any = lease
    assert not bootsteps._try_acquire(stub, lock)
    assert free
    assert all(free)
    assert lease.asked == int(closed)
