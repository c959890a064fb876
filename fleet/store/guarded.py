"""redis-py's client with a guard before each command: the circuit breaker, for reads as for writes.

Scripts go by `fleet.store.wire` and are guarded by `Store`; every other request to the
server goes through `execute_command` or a pipeline's `execute`, redis-py's two public doors.
"""

from typing import Any, Protocol, cast

import redis
from redis.client import Pipeline
from redis.exceptions import RedisError


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
