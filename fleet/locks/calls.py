"""The locks' scripts, called on connections of their own.

A waiter sends two commands at once: block until woken, and ask again. The server keeps the second
in the connection's buffer and runs it in the moment of the wake-up, so that no client has to be
scheduled between a release and the next hold. A waiter that died has no connection any more, hence
takes nothing.
"""

import os
import threading
import weakref
from typing import Any, ClassVar, Literal

from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as TimedOut

from fleet.store import Store
from fleet.store.connection import reachable
from fleet.store.ledger_clock import is_stale
from fleet.store.script import R, ScriptCall, script_source
from fleet.store.wire import Script

#: More are closed when they come back: a burst of waiters has opened them.
IDLE_MAX = 32


class LockAcquireCall(ScriptCall[tuple[int, ...]]):
    """Acquire a lock, or a place in its line."""

    library: ClassVar[str] = "_lock"

    lock: str
    id: str
    group: str
    manner: str
    ttl_ms: int
    place: int
    keep_ms: int
    wakes: Literal["", 1] = ""


class LockRenewCall(ScriptCall[int]):
    """Renew a hold."""

    library: ClassVar[str] = "_lock"

    lock: str
    id: str
    ttl_ms: int


class LockReleaseCall(ScriptCall[int]):
    """Release a hold, or withdraw the request for one."""

    library: ClassVar[str] = "_lock"

    lock: str
    id: str
    refuse_ms: int | Literal[""] = ""


class LockCalls:
    """Calls of the lock scripts on one store. Safe to share between threads.

    Raises BrokerUnavailable when the store does not answer; the script may have run then.
    """

    def __init__(self, store: Store) -> None:
        self._pool = store.client.connection_pool
        self._clock = store.clock
        self._idle: list[Any] = []
        weakref.finalize(self, _disconnect, self._idle)
        #: A longer wait would look to the socket like a server that hangs.
        self.block_s_max: float = (self._pool.connection_kwargs.get("socket_timeout") or 60.0) / 2

    def call(self, call: ScriptCall[R], *, repeat: bool = True) -> R:
        """The answer of a script. `repeat`: once more when the connection broke on the way."""
        with reachable():
            try:
                return self._exchange(call)
            except Disconnected:
                if not repeat:
                    raise
                self.forget()
                return self._exchange(call)

    def wait(
        self,
        wakeup: str,
        at_most_s: float,
        call: ScriptCall[R],
        *,
        ahead: ScriptCall[R] | None = None,
    ) -> R:
        """Block until the list `wakeup` is pushed or the time is over; then the answer of a script.

        `ahead` is a call to send before the wait. Nobody reads its answer.
        """
        # To the server zero means for ever.
        before = _command("BLPOP", wakeup, f"{max(0.001, at_most_s):.3f}")
        if ahead:
            before = _SKIP + _script(type(ahead)).packed(ahead.args()) + before
        with reachable():
            try:
                return self._exchange(call, before)
            except (Disconnected, TimedOut):
                # The server's clock may have gone back, and the end of the wait with it.
                self.forget()
                return self._exchange(call)

    def forget(self) -> None:
        """Drop the idle connections: their server went away, or they are a parent process's."""
        _disconnect(self._idle)

    def _exchange(self, call: ScriptCall[R], before: bytes = b"") -> R:
        try:
            return self._try(call, before)
        except ResponseError as error:
            if not is_stale(error):
                raise
            self._clock.settle()
            return self._try(call)

    def _try(self, call: ScriptCall[R], before: bytes = b"") -> R:
        """One write: `before`, which has one answer, and the script. The script's answer.

        Whatever happens on the way, a time limit too, the connection is not used again then.
        """
        script, args = _script(type(call)), call.args()
        try:
            connection = self._idle.pop()
        except IndexError:
            # Not the pool's: it counts what it has made, and refuses at a hundred.
            connection = self._pool.connection_class(**self._pool.connection_kwargs)
        try:
            connection.connect()  # does nothing where it is connected
            connection.send_packed_command([before + script.packed(args)])
            if before:
                connection.read_response()
            try:
                answer: R = connection.read_response()
            except NoScriptError:
                connection.send_command("EVAL", script.text, 0, *args)
                answer = connection.read_response()
        except BaseException:
            connection.disconnect()
            raise
        if len(self._idle) < IDLE_MAX:
            self._idle.append(connection)
        else:
            connection.disconnect()
        return answer


def _disconnect(idle: list[Any]) -> None:
    while True:
        try:
            connection = idle.pop()
        except IndexError:
            return
        # Of a parent's connection this closes our end only: redis-py knows by its pid whose it is.
        connection.disconnect()


def _command(*words: str) -> bytes:
    parts = (b"$%d\r\n%b\r\n" % (len(word), word) for word in map(str.encode, words))
    return b"*%d\r\n%b" % (len(words), b"".join(parts))


#: The next command has no answer.
_SKIP = _command("CLIENT", "REPLY", "SKIP")


_scripts: dict[type[ScriptCall[Any]], Script] = {}


def _script(kind: type[ScriptCall[Any]]) -> Script:
    if kind not in _scripts:
        _scripts[kind] = Script(script_source(kind))
    return _scripts[kind]


_CALLS: weakref.WeakKeyDictionary[Store, LockCalls] = weakref.WeakKeyDictionary()
_MAKING = threading.Lock()


def calls_of(store: Store) -> LockCalls:
    """The calls of a store, shared by all locks of this process."""
    with _MAKING:
        calls = _CALLS.get(store)
        if calls is None:
            calls = _CALLS[store] = LockCalls(store)
        return calls


def _in_child() -> None:
    """The parent's connections are not ours, and a thread that is gone may hold `_MAKING`."""
    global _MAKING
    _MAKING = threading.Lock()
    for calls in list(_CALLS.values()):
        calls.forget()


os.register_at_fork(after_in_child=_in_child)
