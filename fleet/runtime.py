"""The wiring of one process: settings, store, ledger, intake, breaker, spool, drainer, wake-ups.

The command line and the workers use `current()`. The API and the upstream client make a `Runtime`
of their own, which spools.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from fleet.broker.breaker import Breaker
from fleet.config.settings import Settings, load
from fleet.errors import BrokerUnavailable
from fleet.intake.intake import Intake
from fleet.intake.spool.acceptors import (
    FailureRecorder,
    SpoolAwareAcceptor,
    SpoolingAcceptor,
)
from fleet.intake.spool.drainer import Drainer
from fleet.intake.spool.offline import OfflineProcess
from fleet.intake.spool.runs import SpoolLedger
from fleet.intake.spool.spool import Spool
from fleet.ledger import ValkeyLedger
from fleet.ledger.protocol import Acceptor
from fleet.store import Store, open_store
from fleet.store.address import store_url, wakeups_in_store
from fleet.store.connection import SOCKET_TIMEOUT_S, CallGuard
from fleet.store.wakeup import publisher_of
from fleet.system.data_dir import private

if TYPE_CHECKING:
    from fleet.store.wakeup_publisher import CeleryWakeupPublisher

#: Longer than any healthy accept takes. A slower one goes into the spool.
INTAKE_TIMEOUT_S = 2.0


class Runtime:
    """The parts of one process, each made at first use and kept.

    `store`, `ledger` and `intake` raise BrokerUnavailable while the embedded broker is down, and
    ConfigError where no store is configured; the next use tries again. What lies in the data folder
    raises FleetError where that is not this user's alone. redis-py's pools notice a
    fork and reconnect in the child. The spool must not be open when a process forks.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        guarded: bool = False,
        spools: bool = False,
        got_in: bool = True,
        offline_command: Sequence[str] = (),
    ) -> None:
        """`guarded`: the store stands behind the breaker.

        `spools`: the intake stores in the spool what the broker does not accept; it then raises
        neither error. `got_in`: see `SpoolingAcceptor`. `offline_command` starts the process that
        runs spooled events; without it the drainer starts none.
        """
        self.settings = settings
        self._guarded = guarded
        self._spools = spools
        self._got_in = got_in
        self._offline_command = offline_command

    @cached_property
    def breaker(self) -> Breaker:
        """The breaker of this data folder."""
        private(self.settings.data_dir)
        return Breaker.of(self.settings)

    @cached_property
    def store(self) -> Store:
        """The store."""
        return self.connect()

    def connect(self) -> Store:
        """Open a store of its own, so that a broken one can be thrown away."""
        return self._open(self.breaker if self._guarded else None)

    @cached_property
    def unguarded_store(self) -> Store:
        """The store, queried also while the breaker is open."""
        return self._open(None, INTAKE_TIMEOUT_S)

    @cached_property
    def wakes(self) -> bool:
        """True where scripts of the store send the wake-ups: the store is the broker."""
        return wakeups_in_store(self.settings)

    @cached_property
    def wakeup_publisher(self) -> "CeleryWakeupPublisher | None":
        """The publisher of wake-ups where the broker is not the store; otherwise scripts do it."""
        return publisher_of(self.settings)

    @property
    def wakeup_fault(self) -> str:
        """Why the broker takes no wake-ups; empty where it does, and where the store is it."""
        return self.wakeup_publisher.fault() if self.wakeup_publisher else ""

    @cached_property
    def ledger(self) -> ValkeyLedger:
        """The ledger."""
        return ValkeyLedger(self.store, self.settings, self.wakeup_publisher)

    @cached_property
    def intake(self) -> Intake:
        """The intake."""
        acceptor = self._acceptor()
        return Intake(acceptor, self.settings.rules(), self.settings.routing_chains())

    @cached_property
    def spool(self) -> Spool:
        """The spool of this data folder."""
        private(self.settings.data_dir)
        return Spool(self.settings)

    @cached_property
    def spool_ledger(self) -> SpoolLedger:
        """The spooled dispatches as a ledger, while the broker is away."""
        return SpoolLedger(self.spool, self.settings, lambda: self.breaker.closed)

    @cached_property
    def drainer(self) -> Drainer:
        """The thread that empties the spool, not started; one process of a data folder works."""
        offline = None
        if self.spool.runs_offline and self._offline_command:
            offline = OfflineProcess(
                self.settings, self.breaker, self.spool_ledger, self._offline_command
            )
        return Drainer(
            self.breaker,
            self.spool,
            ledger=lambda: self._intake_ledger,
            store=lambda: self._open(None, INTAKE_TIMEOUT_S),
            offline=offline,
        )

    @cached_property
    def _intake_ledger(self) -> ValkeyLedger:
        # Acceptor and drainer have read the breaker already, except where nothing is spooled.
        guard = FailureRecorder(self.breaker) if self.spool.enabled else self.breaker
        store = self._open(guard, INTAKE_TIMEOUT_S)
        return ValkeyLedger(store, self.settings, self.wakeup_publisher)

    def _acceptor(self) -> Acceptor:
        if self._spools:
            return SpoolingAcceptor(
                lambda: self._intake_ledger,
                self.breaker,
                self.spool,
                self.drainer.wake,
                got_in=self._got_in,
            )
        if self.spool.runs_offline:
            return SpoolAwareAcceptor(self.ledger, self.spool)
        return self.ledger

    def _open(self, guard: CallGuard | None, timeout_s: float = SOCKET_TIMEOUT_S) -> Store:
        try:
            url = store_url(self.settings)
        except BrokerUnavailable:
            if guard is not None:
                self.breaker.record_failure("no broker is running")
            raise
        return open_store(
            url,
            bus_max_length=self.settings.bus.max_length,
            wakes=self.wakes,
            socket_timeout_s=timeout_s,
            connect_timeout_s=timeout_s,
            guard=guard,
        )


_current: Runtime | None = None


def current() -> Runtime:
    """The runtime of this process: that of its configuration, unless one was set.

    Raises ConfigError.
    """
    if _current is None:
        set_current(Runtime(load()))
    assert _current is not None  # noqa: S101 - just set
    return _current


def set_current(runtime: Runtime | None) -> None:
    """Make `runtime` that of this process; None forgets it."""
    global _current
    _current = runtime
