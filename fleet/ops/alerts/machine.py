"""Alerts of one host that need no store: an outage, the breaker, the spool.

`scripts/alerts.lua` is the memory that all machines share, but the store is down just when these
alerts are needed. So one process of each machine has a memory of its own and sends by itself. It
holds the lock on `alerts.lock` in the data folder, and this file is its memory.
"""

import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleet.broker.breaker import Breaker
from fleet.config.settings import Settings
from fleet.config.spool import SpoolConfig
from fleet.intake.spool.folder import SpoolFull
from fleet.intake.spool.spool import Spool
from fleet.ledger import bus
from fleet.ops.alerts import machine_marks
from fleet.ops.alerts.conditions import Condition
from fleet.ops.alerts.machine_marks import MachineMarks
from fleet.ops.alerts.message import AlertMessage
from fleet.ops.alerts.sender import AlertSender
from fleet.store import Store
from fleet.store.alert_calls import AlertOverCall
from fleet.system import file_lock, files

logger = logging.getLogger(__name__)

#: An outage of the store is reported after this long: a restart takes less.
OUTAGE_AFTER_S = 5.0
#: Spooled events are reported after this long.
SPOOLED_AFTER_S = 10.0
#: A growing condition is reported again after this.
RETRY_DELAY_S = 300.0
#: Alerts that are kept after they are over.
PAST_MAX = 200
NEARLY_FULL = 0.8
#: The file in the data folder: lock and memory.
MEMORY = "alerts.lock"
#: The next event no longer fits, though some bytes are left.
FULL = 0.99


@dataclass(slots=True)
class KnownAlert:
    """The record of a reported condition; times are seconds of the wall clock."""

    name: str
    reason: str
    since: float
    count: int = 0
    sent_at: float = 0.0  #: to the receiver; 0 before
    told_at: float = 0.0  #: when it had lasted as long as it must; 0 before
    on_bus: bool = False


class MachineAlerts:
    """The conditions of one machine, reported by one of its processes. Used by one thread."""

    def __init__(
        self,
        settings: Settings,
        sender: AlertSender,
        *,
        first: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`first`: this process reports where no lock can be acquired, as on a broken disk."""
        self._first = first
        # Its own: a worker forks, and its children must not inherit an open spool.
        self._breaker, self._spool = Breaker.of(settings), Spool(settings)
        self._limits = settings.spool
        self._sender = sender
        self._now = now
        self._path = settings.data_dir.absolute() / MEMORY
        self._marks = MachineMarks()
        #: Keys and names of alerts that are sent to nobody.
        self.silenced: frozenset[str] = frozenset()
        self._lock: int | None = None
        self._known: dict[str, KnownAlert] = {}
        self._written = b"{}"
        self._writable = True

    def check(self, store: Store | None, away: str = "") -> None:
        """Detect conditions and report changes; `store` is None while it is down, `away` says why.

        Raises BrokerUnavailable; an unsent report is repeated by the next call.
        """
        if not self._owns_lock():
            return
        self._marks = machine_marks.read(self._path.parent)
        try:
            self._compare(list(self._conditions(away)), store)
        finally:
            self._write()

    def close(self) -> None:
        """Release the lock to another process of the machine."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _conditions(self, away: str) -> Iterator[Condition]:
        host = socket.gethostname()
        if away:
            yield Condition(name="store_away", reason=away, for_s=OUTAGE_AFTER_S)
        breaker = self._breaker
        if not breaker.closed:
            cause = breaker.read_state()[0].cause
            fault = f"{host} does not use the broker any more, after {cause}: events are spooled"
            yield Condition(name="breaker_open", reason=fault)
        yield from spool_conditions(self._spool, self._limits)

    def _compare(self, found: list[Condition], store: Store | None) -> None:
        now = self._now()
        for condition in found:
            known = self._known.setdefault(
                condition.key, KnownAlert(condition.name, condition.message, since=now)
            )
            known.reason = condition.message
            if now - known.since < condition.for_s:
                continue
            known.told_at = known.told_at or now
            grown = condition.count > known.count and now - known.sent_at >= RETRY_DELAY_S
            grown = grown and machine_id(condition.key, known) not in self._marks.acks
            wanted = (not known.sent_at or grown) and not self._is_silenced(condition.key, known)
            if wanted and self._send(known, "open", now):
                known.sent_at, known.count = now, condition.count
            # The bus is down during the other conditions; their end is reported on it elsewhere.
            if store is not None and not known.on_bus and known.name.startswith("spool"):
                bus.alert(store, known.name, known.reason, "open")
                known.on_bus = True
        for key in self._known.keys() - {condition.key for condition in found}:
            known = self._known[key]
            if known.told_at and store is not None:
                _keep(store, key, known, now, self._marks.acks.get(machine_id(key, known)))
            known.told_at = 0.0
            if known.on_bus and store is not None:
                bus.alert(store, known.name, known.reason, "closed")
                known.on_bus = False
            silent = self._is_silenced(key, known)
            if known.sent_at and (silent or self._send(known, "closed", now)):
                known.sent_at = 0.0
            if not known.on_bus and not known.sent_at:
                del self._known[key]

    def _is_silenced(self, key: str, known: KnownAlert) -> bool:
        return bool((self.silenced | self._marks.silenced) & {key, known.name})

    def _send(self, known: KnownAlert, state: str, now: float) -> bool:
        if not self._sender.enabled:
            return True
        if not self._sender.ready:
            return False
        at_ms = int(now * 1000)
        return self._sender.send(
            AlertMessage(
                id=f"{at_ms}-{known.name}",
                name=known.name,
                reason=known.reason,
                state=state,
                at_ms=at_ms,
            )
        )

    def _owns_lock(self) -> bool:
        if self._lock is not None:
            return True
        try:
            self._lock = file_lock.acquire(self._path)
        except OSError:
            return self._first
        if self._lock is not None:
            self._known = _read(self._path)
        return self._lock is not None

    def _write(self) -> None:
        text = json.dumps({key: asdict(known) for key, known in self._known.items()}).encode()
        if self._lock is None or text == self._written:
            return
        try:
            os.pwrite(self._lock, text, 0)
            os.ftruncate(self._lock, len(text))
            self._written, self._writable = text, True
        except OSError as error:
            # The memory is right, and the next check writes it again.
            if self._writable:
                logger.warning("alerts: %s cannot be written (%s)", self._path, error.strerror)
            self._writable = False


def machine_id(key: str, known: KnownAlert) -> str:
    """The id of an opening on this machine."""
    opening = f"{socket.gethostname()}:{key}:{known.told_at}"
    return hashlib.sha256(opening.encode()).hexdigest()[:12]


def _keep(
    store: Store, key: str, known: KnownAlert, now: float, ack: dict[str, Any] | None
) -> None:
    """Put an alert that is over beside those of the fleet."""
    record = {
        "id": machine_id(key, known),
        "key": key,
        "name": known.name,
        "agent": "",
        "host": socket.gethostname(),
        "reason": known.reason,
        "state": "resolved",
        "opened": known.told_at * 1000,
        "ended": now * 1000,
        "ack": ack,
    }
    store.run(AlertOverCall(record=json.dumps(record), past_max=PAST_MAX))


def spool_conditions(spool: Spool, limits: SpoolConfig) -> Iterator[Condition]:
    """The conditions of this machine's spool."""
    host = socket.gethostname()
    try:
        size, refused = spool.size(), spool.refused
        quarantined = [
            entry.reason for _, state in spool.quarantined() for entry in state.ordered()
        ]
    except SpoolFull as error:
        yield Condition(name="spool_unreadable", reason=f"{host}: {error}")
        return
    if damaged := spool.damaged():
        yield Condition(
            name="spool_damaged",
            reason=f"a damaged segment of {host}'s spool was set aside as {damaged[0]}: "
            "events may be in it",
            remedy="see what is in it, and move it away from spool/damaged",
            count=len(damaged),
        )
    if quarantined:
        yield Condition(
            name="spool_aside",
            reason=f"{len(quarantined)} events of {host} cannot be delivered: {quarantined[0]}",
            remedy="correct that, and start the API again",
            count=len(quarantined),
        )
    if refused:
        yield Condition(
            name="spool_refuses",
            reason=f"{host} has refused {refused} events: neither broker nor spool took them",
            remedy="bring the broker back, or make room for the spool",
            count=refused,
        )
    if not size.events:
        return
    yield Condition(
        name="spool_holds",
        reason=f"{size.events} events wait on the disk of {host} for the broker",
        remedy="a running API delivers them once the broker answers",
        for_s=SPOOLED_AFTER_S,
        count=size.events,
    )
    part = max(size.events / max(limits.max_events, 1), size.bytes / limits.max_bytes)
    remedy = "bring the broker back, or raise spool.max_events and spool.max_bytes"
    if part >= FULL:
        fault = f"the spool of {host} is full: events are refused"
        yield Condition(name="spool_full", reason=fault, remedy=remedy)
    if part >= NEARLY_FULL:
        fault = f"the spool of {host} is nearly full: then events are refused"
        yield Condition(name="spool_nearly_full", reason=fault, remedy=remedy)


def read_memory(path: Path) -> dict[str, KnownAlert]:
    """Look at the memory of a machine, which another process writes; empty where there is none."""
    try:
        stored: dict[str, dict[str, Any]] = json.loads(path.read_bytes() or b"{}")
        return {key: KnownAlert(**known) for key, known in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        # Its writer sets damaged content aside, and says so.
        return {}


def _read(path: Path) -> dict[str, KnownAlert]:
    """Read the memory of the lock's last holder; empty where the file is new or damaged."""
    if not path.stat().st_size:
        return {}
    # Damaged content is set aside as a copy: the file itself is the lock.
    stored = files.read_json(path, copy=True) or {}
    try:
        return {key: KnownAlert(**known) for key, known in stored.items()}
    except TypeError:
        files.set_aside(path, "it is not what was written", copy=True)
        return {}
