"""A connection to the store and its scripts, each loaded once and called by name.

A guard may stand before each call: the circuit breaker, for reads as for writes. Scripts go by
`fleet.store.wire` and are guarded by `Store`. Every other request to the server goes through
`execute_command` or a pipeline's `execute`, redis-py's two public doors.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pkgutil import resolve_name
from typing import Any, Protocol, TypeVar, cast

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.client import Pipeline
from redis.exceptions import RedisError
from redis.retry import Retry

from fleet.broker.tls import TlsConnection, refusal_of
from fleet.config.sentinel_address import SCHEME
from fleet.errors import BrokerRefusal, BrokerUnavailable
from fleet.formats.redaction import mask_url
from fleet.store.script import Arg, Batch, R, ScriptCall, script_source
from fleet.store.sentinel import REPLICA_WAIT_S, Replicas, sentinel_pool
from fleet.store.wakeup import wakeup_template
from fleet.store.wire import TIMEOUT_S, Script, Wire, do_nothing

#: Longer than any script takes, shorter than a sender's patience; a hung server counts as down.
SOCKET_TIMEOUT_S = 5.0

#: Of reads, which go by redis-py's pool. More at the same time wait for one of these to end.
READ_CONNECTIONS_MAX = 64

#: Of calls that the server runs without another client's in between; each takes a millisecond.
CALLS_ALONE_MAX = 10

#: The type of a repeated call's answer.
Answer = TypeVar("Answer")


class CallGuard(Protocol):
    """Lets calls through or not, and records their errors."""

    def check(self) -> None:
        """Raise a redis-py error instead of letting a call through."""
        ...

    def record_error(self, error: Exception) -> None:
        """Record the error of a call."""
        ...


class GuardedClient(redis.Redis):
    """A client whose every command passes its guard."""

    guard: CallGuard

    @classmethod
    def behind(cls, guard: CallGuard, pool: "redis.ConnectionPool") -> "GuardedClient":
        """A client of its own pool."""
        guarded = cast("GuardedClient", cls.from_pool(pool))
        guarded.guard = guard
        return guarded

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """As in redis-py."""
        self.guard.check()
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            self.guard.record_error(error)
            raise

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> "GuardedPipeline":
        """As in redis-py."""
        made = GuardedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )
        made.guard = self.guard
        return made


class GuardedPipeline(Pipeline):
    """Commands that are sent together; a guard lets all of them through or none."""

    guard: CallGuard

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """As in redis-py."""
        self.guard.check()
        try:
            return super().execute(raise_on_error)
        except (RedisError, OSError) as error:
            self.guard.record_error(error)
            raise


@dataclass(frozen=True, slots=True)
class _Args:
    """The arguments of a batch's calls, each made when those before are already being sent."""

    batch: Batch[ScriptCall[Any]]

    def __len__(self) -> int:
        return len(self.batch)

    def __iter__(self) -> Iterator[Sequence[Arg]]:
        for call in self.batch:
            yield call.args()


class Store:
    """A client of the store. Safe to share between threads; after a fork open another.

    Every call raises BrokerUnavailable when the server refuses, hangs or is gone. The script may
    have run then, and every script may be repeated.
    """

    def __init__(
        self,
        client: "redis.Redis",
        bus_max_length: int,
        *,
        wakes: bool,
        guard: CallGuard | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self.client = client
        self._guard = guard
        self._always: tuple[Arg, Arg] = (bus_max_length, wakeup_template() if wakes else "")
        self._wire = Wire(client, again_after=_again_after(guard), replicas=replicas)
        self.clock = self._wire.clock
        self._scripts: dict[type[ScriptCall[Any]], Script] = {}

    def run(self, call: ScriptCall[R]) -> R:
        """Call a script; its legend says what the arguments and the answer are."""
        return self.run_many(type(call), (call,))[0]

    def run_many(
        self,
        kind: type[ScriptCall[R]],
        batch: Batch[ScriptCall[R]],
        *,
        alone: bool = False,
        meanwhile: Callable[[], None] = do_nothing,
    ) -> list[R]:
        """Call one script several times in one round trip; each call is atomic.

        `alone`: all of them together are, so that they run in their order. `meanwhile` is called
        while the server works.
        """
        if kind not in self._scripts:
            self._scripts[kind] = Script(script_source(kind), *self._always, writes=kind.writes)
        script, args = self._scripts[kind], _Args(batch)
        with reachable():
            if self._guard is None:
                return self._wire.call(script, args, alone=alone, meanwhile=meanwhile)
            self._guard.check()
            try:
                return self._wire.call(script, args, alone=alone, meanwhile=meanwhile)
            except (RedisError, OSError) as error:
                self._guard.record_error(error)
                raise

    def run_in_order(self, kind: type[ScriptCall[R]], batch: Iterable[ScriptCall[R]]) -> list[R]:
        """Call one script several times, none before all earlier ones have run.

        A few in each round trip, so that the server is never occupied for long.
        """
        rest, answers = iter(batch), list[R]()
        while part := list(islice(rest, CALLS_ALONE_MAX)):
            answers += self.run_many(kind, part, alone=True)
        return answers

    def run_each(self, batch: Iterable[ScriptCall[R]]) -> list[R]:
        """Make calls one after the other; the next one is taken while the server runs the last."""
        rest, following, answers = iter(batch), list[ScriptCall[R]](), list[R]()

        def take() -> None:
            following.extend(islice(rest, 1))

        take()
        while following:
            call = following.pop()
            answers += self.run_many(type(call), (call,), meanwhile=take)
            if not following:
                # Its connection was broken before it was sent.
                take()
        return answers

    def close(self) -> None:
        """Close the connections of this process."""
        self._wire.close()
        self.client.close()


def open_store(
    url: str,
    *,
    bus_max_length: int = 10_000,
    wakes: bool = True,
    socket_timeout_s: float | None = SOCKET_TIMEOUT_S,
    connect_timeout_s: float = SOCKET_TIMEOUT_S,
    guard: CallGuard | None = None,
) -> Store:
    """A store for `url`; connects when first used. A blocking reader sets no socket timeout.

    A `credential_provider=MODULE:CLASS` in the URL gives the password at each connect.
    `wakes` is False where the broker is elsewhere: the scripts then push no wake-ups. `guard`
    stands before every call, and records every failure.
    """
    # A Unix socket has no keep-alive, and redis-py refuses the word there.
    keepalive = {} if url.startswith("unix://") else {"socket_keepalive": True}
    # redis-py's other pool, its default, raises when one call more than its limit comes.
    options: dict[str, Any] = dict(
        max_connections=READ_CONNECTIONS_MAX,
        decode_responses=True,
        socket_timeout=socket_timeout_s,
        socket_connect_timeout=connect_timeout_s,
        health_check_interval=15,
        # Otherwise each connect reads redis-py's version from disk, 3 ms, and sends it.
        driver_info=None,
        # One quick second try for a connection the server closed while it idled; no more, so that
        # a caller learns within seconds that the broker is gone.
        retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.1), 1, _again_after(guard)),
        **keepalive,
    )
    replicas = None
    pool: redis.ConnectionPool
    if url.startswith(SCHEME):
        pool = behind = sentinel_pool(url, timeout_s=TIMEOUT_S, **options)
        replicas = Replicas(behind, min(REPLICA_WAIT_S, (socket_timeout_s or TIMEOUT_S) / 2))
    else:
        pool = redis.BlockingConnectionPool.from_url(url, timeout=TIMEOUT_S, **options)
        _follow_password(pool.connection_kwargs)
        if issubclass(pool.connection_class, redis.SSLConnection):
            pool.connection_class = TlsConnection
    client = GuardedClient.behind(guard, pool) if guard else redis.Redis.from_pool(pool)
    return Store(client, bus_max_length, wakes=wakes, guard=guard, replicas=replicas)


def _follow_password(options: dict[str, Any]) -> None:
    """Read a URL's `credential_provider` as kombu and Celery do; redis-py takes the object only."""
    if named := options.get("credential_provider"):
        options["credential_provider"] = resolve_name(named)()
        for word in ("username", "password"):
            options.pop(word, None)


def _again_after(guard: CallGuard | None) -> tuple[type[Exception], ...]:
    """Errors after which a call is tried a second time.

    Behind a guard each timeout is a failure that counts, and a caller has somewhere else to go.
    """
    if guard is None:
        return (redis.ConnectionError, redis.TimeoutError, TimeoutError)
    return (redis.ConnectionError,)


@contextmanager
def reachable() -> Iterator[None]:
    """Turn what redis-py raises into one sentence that shows no password."""
    try:
        yield
    except (RedisError, OSError) as error:
        if refusal := refusal_of(error):
            raise BrokerRefusal(refusal) from error
        # A pipeline's error repeats the command, and with it what a sender wrote.
        reason = str(error).rpartition("of pipeline caused error: ")[2]
        raise BrokerUnavailable(f"The broker does not answer: {mask_url(reason)}") from error


def retry_while_away(call: Callable[[], Answer], timeout_s: float, delay_s: float = 0.2) -> Answer:
    """The answer of `call`; raises BrokerUnavailable once the store was away for `timeout_s`."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            return call()
        except BrokerUnavailable:
            if time.monotonic() + delay_s > until:
                raise
            time.sleep(delay_s)
