"""The keeper: asks whether the broker is back, and hands the spool over to the ledger."""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from fleet.errors import BrokerUnavailable, ConfigError, FleetError, IdempotencyConflict
from fleet.intake.spool.components import SpoolComponents
from fleet.intake.spool.file import unusable
from fleet.intake.spool.offline import OfflineProcess, is_running
from fleet.intake.spool.table import Kept, SpoolFull
from fleet.ledger import HandOver, Report, ValkeyLedger, bus, views
from fleet.store import Store, keys
from fleet.store.probe import probe
from fleet.system import file_lock
from fleet.system.agent_lock import record_paused

logger = logging.getLogger(__name__)

#: How often it looks whether a probe is due, whether somebody closed the breaker, or spooled.
POLL_INTERVAL_S = 0.5
#: After a hand-over that failed; five of them open the breaker.
RETRY_DELAY_S = 1.0
#: For what it does just now, and for turns that run from the spool; then it ends with its process.
CLOSE_S = 8.0
#: Events in one round trip.
BATCH = 100


class Drainer:
    """A thread of the API. Of several on one data folder one works, the others stand by.

    `ledger` stands behind the breaker, `store` does not; both may raise BrokerUnavailable.
    """

    def __init__(
        self,
        shelter: SpoolComponents,
        ledger: Callable[[], ValkeyLedger],
        store: Callable[[], Store],
        direct: OfflineProcess | None = None,
    ) -> None:
        self._breaker = shelter.breaker
        self._spool = shelter.spool
        self._offered = shelter.submissions
        self._ledger = ledger
        self._store = store
        self._direct = direct
        self._runs = shelter.runs
        self._look = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock: int | None = None
        self._told = ""
        self._unclean = True
        self._knows_paused = False

    def start(self) -> None:
        """Begin, in a daemon thread."""
        self._breaker.prepare()
        try:
            self._spool.prepare()
            if self._spool.exists and (again := self._spool.release_quarantined()):
                logger.warning("%d events that were put aside are tried again", again)
        except SpoolFull as error:
            self._tell(str(error))
        self._thread = threading.Thread(target=self._run, name="spool-keeper", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        self._look.set()

    def close(self) -> None:
        """End within moments; what is in the spool waits for the next keeper."""
        self._stopped.set()
        self._look.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stopped.is_set():
            self._look.wait(wait_s)
            self._look.clear()
            wait_s = POLL_INTERVAL_S
            try:
                self.work()
                self._told = ""
            except FleetError as error:
                self._tell(str(error))
                wait_s = 0.0
                self._stopped.wait(RETRY_DELAY_S)
            except Exception:
                # Without it nothing would leave the spool any more.
                logger.exception("the spool's keeper failed and tries again")
                self._stopped.wait(RETRY_DELAY_S)
        if self._direct is not None:
            self._direct.close()
        if self._lock is not None:
            os.close(self._lock)

    def work(self) -> int:
        """Probe if that is due, and hand over what can be; how many events.

        While the broker is away, have what may be run from here. Raises BrokerUnavailable, and
        SpoolFull when the spool cannot be read.
        """
        away = not self._breaker.closed and not self._probe()
        # The lock also while there is nothing to do: `fleet send` looks for it.
        if not self._alone():
            return 0
        if away:
            if self._direct is not None:
                self._direct.run_if_needed()
            return 0
        # Also where nothing may run from here any more: what ran before may still be ending.
        if not self._direct.drain() if self._direct else is_running(self._spool.folder):
            return 0
        done = self._hand_over() if self._spool.holds else 0
        if self._direct is not None:
            self._direct.stop()
        self._tell_refused()
        self._learn_paused()
        if self._unclean and self._spool.exists:
            self._spool.clear()
        self._unclean = False
        return done

    def _probe(self) -> bool:
        # By a connection of its own: an old one does not show whether the password is still right.
        with ExitStack() as opened:

            def fresh() -> Store:
                store = self._store()
                opened.callback(store.close)
                return store

            return probe(self._breaker, fresh)

    def _hand_over(self) -> int:
        ledger, done = self._ledger(), 0
        while not self._stopped.is_set():
            kept = self._spool.first(BATCH)
            reports = self._reports(kept)
            batch = [
                HandOver(
                    event=one.event,
                    plan=one.plan,
                    age_s=one.age_s,
                    reports=tuple(reports.get(one.seq, ())),
                )
                for one in kept
            ]
            self._note(kept)
            try:
                late = ledger.import_spooled(batch)
            except IdempotencyConflict as error:
                _tell_late(ledger, error.late)
                self._put_aside_what_cannot_be(ledger, kept, batch)
                continue
            except ConfigError:
                self._put_aside_what_cannot_be(ledger, kept, batch)
                continue
            # Before these leave the spool, so that it is told whatever fails then.
            _tell_late(ledger, late)
            done += len(kept)
            self._unclean = self._unclean or bool(kept)
            if self._spool.mark_imported(kept[-1].seq if kept else 0):
                break
        if done:
            logger.warning("the spool is empty: the ledger has its %d events", done)
        return done

    def _note(self, kept: Sequence[Kept]) -> None:
        """Before the ledger is asked: whether it has them may never be answered."""
        if not kept:
            return
        self._spool.offering(kept[-1].seq)
        if self._offered is not None:
            self._offered.record(keys.event_digest(one.event.key) for one in kept)

    def _reports(self, kept: Sequence[Kept]) -> Mapping[int, Sequence[Report]]:
        return self._runs.reports(one.seq for one in kept)

    def _put_aside_what_cannot_be(
        self, ledger: ValkeyLedger, kept: Sequence[Kept], batch: Sequence[HandOver]
    ) -> None:
        """An event that the configuration has no place for any more must not stop the others, nor
        one whose id the ledger has for another.
        """
        for one, handed in zip(kept, batch, strict=True):
            try:
                _tell_late(ledger, ledger.import_spooled([handed]))
            except (ConfigError, IdempotencyConflict) as error:
                self._spool.quarantine(one.seq, str(error))
                logger.error("an event is put aside until the next start: %s", error)

    def _tell_refused(self) -> None:
        refused = self._spool.pop_refused()
        if refused:
            try:
                reason = f"{refused} events were refused: neither broker nor spool took them"
                bus.alert(self._ledger().store, "spool_refused", reason)
            except BrokerUnavailable:
                self._spool.count_refused(refused)
                raise

    def _learn_paused(self) -> None:
        """Once: an agent may have been paused while nothing was to run from here."""
        if self._direct is None or self._knows_paused:
            return
        ledger = self._ledger()
        names = list(ledger.settings.agents)
        for agent, row in views.agents(ledger.store, names).items():
            if row["paused"]:
                record_paused(ledger.settings.data_dir, agent, True)
        self._knows_paused = True

    def _alone(self) -> bool:
        """True for the one keeper of the data folder."""
        if self._lock is None:
            try:
                self._lock = file_lock.acquire(_lock_of(self._spool.folder))
            except OSError as error:
                raise SpoolFull(unusable(error)) from error
        return self._lock is not None

    def _tell(self, sentence: str) -> None:
        if sentence != self._told:
            logger.warning("the spool waits: %s", sentence)
        self._told = sentence


def _tell_late(ledger: ValkeyLedger, late: int) -> None:
    if not late:
        return
    reason = f"{late} dispatches that ran while the broker was away had run before, too"
    logger.error(reason)
    bus.alert(ledger.store, "ran_twice", reason)


def has_drainer(folder: Path) -> bool:
    """True while some process drains the spool in `folder`. Raises SpoolFull."""
    try:
        return file_lock.is_held(_lock_of(folder))
    except OSError as error:
        raise SpoolFull(unusable(error)) from error


def _lock_of(folder: Path) -> Path:
    return folder / "keeper.lock"
