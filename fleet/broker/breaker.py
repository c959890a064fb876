"""The circuit breaker before a broker, one for all processes that share it and a data folder.

The problem: a broker that is gone or hangs costs each caller its whole timeout, and a thousand
callers at once keep a recovering broker down. So after `breaker.failure_threshold` failures within
a minute no call is made, except a probe once in a while (the rule is in `fleet.broker.circuit`).

The state cannot be in the broker, which is gone. It is a small file in the data folder that every
process of the machine maps into its memory: while all is well, a check reads one byte. Changes are
rare and are made under a lock of the file, so one process opens the breaker, and one probes. A
probe is a write (`scripts/breaker.lua`): a broker that only reads, or is out of memory, is not
back. The probe also puts on the bus that the breaker opened and closed. Several machines have a
breaker and a probe each; they cannot agree without the broker.

It guards all calls of the API and of `fleet send`. It does not guard a worker's calls, which the
lease bounds already: a renewal that is not tried would end a good turn, and an outcome that is not
written would be lost. A worker's renewal that succeeds while the breaker is open counts as a probe
that is due. So a fleet on one machine is back within seconds, not after 30.
"""

import hashlib
import json
import logging
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import redis
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from fleet.broker.circuit import Circuit, begin_probe, end_probe, record_failure
from fleet.broker.tls import refusal_of
from fleet.config.sections import BreakerConfig
from fleet.config.settings import Settings
from fleet.system import files
from fleet.system.clock import boot_id, boottime
from fleet.system.file_lock import locked

logger = logging.getLogger(__name__)

_SIZE = 2048
_SHUT = b"\0"
#: Errors of a reachable server that rejects all writes. Any other error is the caller's fault.
_TAKES_NOTHING = ("MISCONF", "NOREPLICAS", "MASTERDOWN", "LOADING", "TRYAGAIN")


class BreakerOpen(redis.ConnectionError):
    """The call was not made: the breaker is open."""


class Breaker:
    """Safe to share between threads. Nothing is written before the first failure."""

    def __init__(
        self,
        data_dir: Path,
        limits: BreakerConfig | None = None,
        clock: Callable[[], float] | None = None,
        *,
        urls: str = "",
    ) -> None:
        """`urls`: the address and credentials of a broker; empty for the embedded one."""
        # A wrong password or address of one process must not keep others from the right one.
        tail = f"-{hashlib.sha256(urls.encode()).hexdigest()[:12]}" if urls else ""
        self._path = data_dir.absolute() / f"breaker{tail}"
        self._limits = limits or BreakerConfig()
        self._now = clock or boottime
        self._memory: mmap.mmap | None = None
        self._file: int | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, settings: Settings) -> "Breaker":
        """The breaker of a configuration's broker."""
        urls = [url for url in (settings.broker_url, settings.store_url) if url]
        return cls(settings.data_dir, settings.breaker, urls=" ".join(urls))

    @property
    def closed(self) -> bool:
        """True while calls are let through; costs next to nothing."""
        memory = self._memory
        if memory is None:
            memory = self._map(make=False)
        return memory is None or memory[:1] == _SHUT

    def prepare(self) -> None:
        """Make the file now, not at the first failure: a check of a missing file costs more."""
        self._map(make=True)

    def check(self) -> None:
        """Raises BreakerOpen instead of letting a call through."""
        if not self.closed:
            state, now = self.read_state()
            if not state.open:  # just closed, or the file was damaged
                return
            left_s = max(0.0, max(state.probe_at, state.probing_until) - now)
            raise BreakerOpen(
                f"it is not asked any more since {state.cause}, {now - state.since:.0f} s ago; "
                f"it is asked again in {left_s:.0f} s"
            )

    def read_state(self) -> tuple[Circuit, float]:
        """The state, and the time by its clock."""
        now = self._now()
        if self._memory is None and self._map(make=False) is None:
            return Circuit(), now
        with self._held():
            return self._read(), now

    @property
    def name(self) -> str:
        """`closed`, `open` or `half_open`."""
        state, now = self.read_state()
        return state.name(now)

    def record_error(self, error: Exception) -> None:
        """Count a call that failed, unless it was the caller's fault."""
        if isinstance(error, BreakerOpen):
            return
        if isinstance(error, ResponseError) and not _takes_nothing(error):
            return
        self.record_failure(type(error).__name__, refusal=refusal_of(error))

    def record_failure(self, cause: str, *, refusal: str = "") -> None:
        """Count a call that failed for `cause`, a kind of error; a `refusal` opens it at once."""

        def change(state: Circuit, now: float) -> Circuit:
            return record_failure(state, now, self._limits, cause, refusal=refusal)

        before, after = self._change(change)
        if after.open and not before.open:
            logger.error(
                "breaker opened: the broker is gone (%s); it is asked again in %.0f s",
                cause,
                after.wait_s,
            )

    def begin_probe(self, *, writable: bool = False) -> Circuit | None:
        """The right to probe the broker; None when another process has it or it is too early."""
        if self.closed:
            return None
        got: list[Circuit] = []

        def change(state: Circuit, now: float) -> Circuit:
            asking = begin_probe(state, now, writable=writable)
            got.extend([asking] if asking else [])
            return asking or state

        self._change(change)
        return got[0] if got else None

    def end_probe(self, *, well: bool) -> None:
        """Record the result of a probe."""
        before, after = self._change(lambda state, now: end_probe(state, now, well=well))
        if before.open and not after.open:
            logger.warning("breaker closed: the broker is back")

    def age_s(self, state: Circuit) -> float:
        """The time since it opened."""
        return max(0.0, self._now() - state.since)

    def _change(self, change: Callable[[Circuit, float], Circuit]) -> tuple[Circuit, Circuit]:
        self._map(make=True)
        with self._held():
            before = self._read()
            after = change(before, self._now())
            if after != before:
                self._write(after)
        return before, after

    def _map(self, *, make: bool) -> mmap.mmap | None:
        """The shared memory; None without `make` while no process has made the file."""
        if self._memory is not None:
            return self._memory
        if not make and not self._path.exists():
            return None
        with self._lock:
            if self._memory is None:
                self._file, self._memory = self._open()
        with self._held():
            self._write(self._read())  # of an earlier boot, perhaps, or cut off by a kill
        return self._memory

    def _open(self) -> tuple[int | None, mmap.mmap]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if os.fstat(file).st_size < _SIZE:
                os.ftruncate(file, _SIZE)
            return file, mmap.mmap(file, _SIZE)
        except OSError as error:
            logger.warning("the breaker is this process's own: %s (%s)", self._path, error.strerror)
            return None, mmap.mmap(-1, _SIZE)

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._lock, nullcontext() if self._file is None else locked(self._file):
            yield

    def _read(self) -> Circuit:
        assert self._memory is not None  # noqa: S101 - `_map` came before
        text = self._memory[1:].rstrip(b"\0")
        if not text:
            return Circuit()
        try:
            found = json.loads(text)
            if found.pop("boot") != boot_id():
                return Circuit()
            return Circuit(**{**found, "failures": tuple(found["failures"])})
        except (ValueError, TypeError, KeyError, AttributeError):
            # A copy: other processes have mapped the file itself.
            files.set_aside(self._path, "it holds no breaker's state", copy=True)
            self._write(Circuit())
            return Circuit()

    def _write(self, state: Circuit) -> None:
        assert self._memory is not None  # noqa: S101 - `_map` came before
        text = json.dumps({**asdict(state), "boot": boot_id()}).encode()
        self._memory[1:] = text.ljust(_SIZE - 1, b"\0")
        self._memory[:1] = b"\1" if state.open else _SHUT


def _takes_nothing(error: ResponseError) -> bool:
    if isinstance(error, ReadOnlyError | OutOfMemoryError | ClusterDownError | AuthenticationError):
        return True
    return str(error).startswith(_TAKES_NOTHING)
