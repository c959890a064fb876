"""The ledger's clock: the server's, from which steps are taken out.

The problem: a server's clock is set forth or back, by a person, by NTP after a wrong start, or
because a replica on another machine was promoted. Deadlines would pass at once, retries wait for
hours, and leases end under a running turn. No script can tell such a step from a time in which
nobody called.

A client can: its machine has a clock that nobody sets. A script that finds the last look at the
clock too old does nothing and answers STALE. The client then looks: it asks the server for its time
and hands it over with the times of its own clock (`clock.lua`), which corrects the ledger's offset
where the server's clock has jumped. The call is repeated. Beat looks every second, and each worker
with its renewals, so that their machines know the time before.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from fleet.store import keys
from fleet.store.script import Arg, ScriptCall
from fleet.system.clock import boot_id, boottime

#: Looks until one is believed. A machine that knows nothing of the time before waits for another
#: one's look, for a bit longer than a period of beat.
LOOKS_MAX = 5
LOOK_DELAY_S = 0.5
#: As in `_clock.lua`.
STALE_MS = 5000

#: Where the system has no name for a boot, the clock is known for the life of this process.
_MACHINE = boot_id() or uuid.uuid4().hex


class ClockCall(ScriptCall[int]):
    """Look at the server's clock."""

    library = "_clock"

    machine: str
    before_ms: int
    after_ms: int
    server_ms: int
    insists: str


def is_stale(answer: object) -> bool:
    """True for the answer of a script that wants the clock looked at first."""
    return isinstance(answer, ResponseError) and str(answer).startswith("STALE")


class LedgerClock:
    """The clock of one store. Safe to share between threads. Raises what redis-py raises."""

    def __init__(
        self,
        client: "redis.Redis",
        ask_time: Callable[[], Sequence[Any]],
        run: Callable[[Sequence[Arg]], bool],
    ) -> None:
        """`ask_time` asks the server for its time, `run` calls the script; `client` reads."""
        self._client = client
        self._ask_time = ask_time
        self._run = run

    def look(self, *, insists: bool = False) -> bool:
        """Look at the clock once; False when nothing is sure. `insists`: believe the server."""
        before = boottime()
        seconds, micros = map(int, self._ask_time())
        after = boottime()
        call = ClockCall(
            machine=_MACHINE,
            before_ms=int(before * 1000),
            after_ms=int(after * 1000) + 1,
            server_ms=seconds * 1000 + micros // 1000,
            insists="1" if insists else "",
        )
        return self._run(call.args())

    def settle(self) -> None:
        """Look at the clock until it is sure what time it is."""
        for left in reversed(range(LOOKS_MAX)):
            if self.look(insists=not left):
                return
            time.sleep(LOOK_DELAY_S)

    def now_ms(self) -> float:
        """The ledger's time, also of a store that takes no writes."""
        raw, looked, offset = self._read()
        if abs(raw - looked) > STALE_MS:
            with suppress(RedisError):
                self.look()
                raw, looked, offset = self._read()
        return raw + offset

    def _read(self) -> tuple[float, float, float]:
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        pipe.hmget(keys.CLOCK, "raw", "offset")
        (seconds, micros), (looked, offset) = pipe.execute()
        raw = seconds * 1000 + micros / 1000
        return raw, float(looked or raw), float(offset or 0)
