"""The drainer: it probes a broker that is away, and imports the spool into the ledger."""

import logging
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from fleet.broker.breaker import Breaker
from fleet.errors import ConfigError, FleetError, IdempotencyConflict
from fleet.intake.spool.folder import SpoolFull, usable
from fleet.intake.spool.offline import OfflineProcess, is_running
from fleet.intake.spool.spool import UNREADABLE, Spool, imported_event
from fleet.ledger import ImportedEvent, ValkeyLedger, agent_rows, bus
from fleet.store import Store
from fleet.store.probe import probe
from fleet.system import file_lock
from fleet.system.agent_lock import record_paused

logger = logging.getLogger(__name__)

#: Between two polls: is a probe due, has a process closed the breaker, or spooled?
POLL_INTERVAL_S = 0.5
#: After a failed import; five of them open the breaker.
RETRY_DELAY_S = 1.0
#: For the work in hand, and for turns that run from the spool.
CLOSE_S = 8.0
#: Events in one round trip.
BATCH = 100
#: The way of events that are refused here, as the bus names it.
CARRIER = "spool"


class Drainer:
    """A thread. Of several on one data folder one works, the others stand by."""

    def __init__(
        self,
        breaker: Breaker,
        spool: Spool,
        ledger: Callable[[], ValkeyLedger],
        store: Callable[[], Store],
        offline: OfflineProcess | None = None,
    ) -> None:
        """`ledger` and `store`, which probes, may raise BrokerUnavailable; `store` opens anew."""
        self._breaker = breaker
        self._spool = spool
        self._ledger = ledger
        self._store = store
        self._offline = offline
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock: int | None = None
        self._logged = ""
        self._settled = False

    def start(self) -> None:
        """Begin, in a daemon thread."""
        self._breaker.prepare()
        try:
            self._spool.prepare()
        except SpoolFull as error:
            self._warn(str(error))
        self._thread = threading.Thread(target=self._run, name="drainer", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Poll now: the spool has grown."""
        self._woken.set()

    def close(self) -> None:
        """Stop within moments; what is in the spool waits for the next drainer."""
        self._stopped.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        else:
            self._release()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.work()
            except FleetError as error:
                self._warn(str(error))
                self._stopped.wait(RETRY_DELAY_S)
            except Exception:
                # A dead drainer would leave every event in the spool.
                logger.exception("the drainer failed and tries again")
                self._stopped.wait(RETRY_DELAY_S)
            else:
                self._logged = ""
                self._woken.wait(POLL_INTERVAL_S)
                self._woken.clear()
        self._release()

    def _release(self) -> None:
        if self._offline is not None:
            self._offline.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def work(self) -> int:
        """Probe if that is due, and import the spool; returns the number of events.

        While the broker is away, start the offline process at need. Raises BrokerUnavailable, and
        SpoolFull when the spool cannot be read.
        """
        away = not self._breaker.closed and not self._probe()
        # The lock also while there is nothing to do: `fleet send` checks it.
        if not self._acquire_lock():
            return 0
        holds = self._spool.check_holds()
        if away:
            if self._offline is not None:
                self._offline.run_if_needed()
            return 0
        if self._offline is not None:
            self._offline.drain()
        # Also where nothing may run offline any more: what ran before may still be ending.
        if is_running(self._spool.folder):
            return 0
        done = self._import() if holds else 0
        if self._offline is not None:
            self._offline.stop()
        self._report_refused()
        if not self._settled:
            self._update_paused()
            self._retry_quarantined()
            self._settled = True
        return done

    def _probe(self) -> bool:
        # By a connection of its own: an old one does not show whether the password is still right.
        with ExitStack() as opened:

            def fresh() -> Store:
                store = self._store()
                opened.callback(store.close)
                return store

            return probe(self._breaker, fresh)

    def _import(self) -> int:
        ledger, done = self._ledger(), 0
        while not self._stopped.is_set():
            batch, last = self._spool.first(BATCH)
            # The ledger may have them from now on.
            self._spool.record_submissions((one.event for one in batch.values()), sync=True)
            done += len(batch)
            if _import_batch(ledger, batch.values()):
                # One that the configuration has no place for any more, or whose id the ledger has
                # for another, must not stop the rest.
                for digest, one in batch.items():
                    if error := _import_batch(ledger, [one]):
                        _report_conflict(ledger, one, error)
                        self._spool.quarantine(digest, str(error))
                        logger.error("an event is quarantined until the next start: %s", error)
                        done -= 1
            if self._spool.mark_imported(last):
                break
        if done:
            logger.warning("the spool is empty: the ledger has its %d events", done)
        return done

    def _retry_quarantined(self) -> None:
        """The configuration may have changed since the last start."""
        ledger = self._ledger()
        for path, state in self._spool.quarantined():
            for entry in state.ordered():
                with suppress(*UNREADABLE), usable():
                    if not _import_batch(ledger, [imported_event(state, entry)]):
                        logger.warning("a quarantined event is accepted now")
                        path.unlink(missing_ok=True)

    def _report_refused(self) -> None:
        refused = self._spool.refused
        if refused:
            reason = f"{refused} events were refused: neither broker nor spool took them"
            bus.alert(self._ledger().store, "spool_refused", reason)
            self._spool.mark_reported(refused)

    def _update_paused(self) -> None:
        """An agent may have been paused while nothing was to run offline."""
        if self._offline is None:
            return
        ledger = self._ledger()
        names = list(ledger.settings.agents)
        for agent, row in agent_rows.rows(ledger.store, names).items():
            if row["paused"]:
                record_paused(ledger.settings.data_dir, agent, True)

    def _acquire_lock(self) -> bool:
        """True for the working drainer of the data folder."""
        if self._lock is None:
            with usable():
                self._lock = file_lock.acquire(_lock_of(self._spool.folder))
        if self._lock is not None and not self._spool.is_ours:
            self._spool.adopt()
        return self._lock is not None

    def _warn(self, sentence: str) -> None:
        if sentence != self._logged:
            logger.warning("the spool waits: %s", sentence)
        self._logged = sentence


def _import_batch(
    ledger: ValkeyLedger, batch: Iterable[ImportedEvent]
) -> ConfigError | IdempotencyConflict | None:
    """Import events, which are in the spool; the error of one that cannot be, otherwise None."""
    try:
        late = ledger.import_spooled(list(batch))
    except (ConfigError, IdempotencyConflict) as error:
        return error
    if late:
        reason = f"{late} dispatches that ran while the broker was away had run before, too"
        logger.error(reason)
        bus.alert(ledger.store, "ran_twice", reason)
    return None


def _report_conflict(ledger: ValkeyLedger, one: ImportedEvent, error: FleetError) -> None:
    """Put on the bus that an accepted event's id stands for another: its sender was told 202.

    Before the event leaves the spool: a crash in between tells it twice.
    """
    if isinstance(error, IdempotencyConflict):
        event, agents = one.event, one.plan.agents
        agent = agents[0] if len(agents) == 1 else ""
        bus.refused(ledger.store, CARRIER, f"{event.id}: {error}", event.source, agent)


def has_drainer(spool: Spool) -> bool:
    """True while some process drains it to this process's broker. Raises SpoolFull."""
    with usable():
        return file_lock.is_held(_lock_of(spool.folder)) and spool.is_ours


def _lock_of(folder: Path) -> Path:
    return folder / "keeper.lock"
