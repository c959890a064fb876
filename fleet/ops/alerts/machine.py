"""What one machine tells without the store: that it is away, its breaker, its spool.

`scripts/alerts.lua` is the memory that all machines share, and it is gone just when these are
needed. So one process of a machine, whoever holds the lock of `alerts.lock` in the data folder,
keeps a memory of its own in that file and sends by itself.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fleet.config.settings import Settings
from fleet.config.spool import SpoolConfig as Limits
from fleet.intake.spool.components import SpoolComponents
from fleet.intake.spool.table import SpoolFull
from fleet.ledger import bus
from fleet.ops.alerts.conditions import Condition
from fleet.ops.alerts.message import AlertMessage
from fleet.ops.alerts.sender import AlertSender
from fleet.store import Store
from fleet.system import file_lock, files

logger = logging.getLogger(__name__)

#: How long the store must be silent before that is told: a restart takes less.
OUTAGE_AFTER_S = 5.0
#: A spool that is emptied sooner is no news.
SPOOLED_AFTER_S = 10.0
#: A growing condition is told again after this.
RETRY_DELAY_S = 300.0
NEARLY_FULL = 0.8
#: The next event does not fit any more, though some bytes are left.
FULL = 0.99


@dataclass(slots=True)
class Known:
    """What was told of one condition; times are seconds of the wall clock."""

    name: str
    reason: str
    since: float
    count: int = 0
    sent_at: float = 0.0  #: to the receiver; 0 where it was not yet
    on_bus: bool = False


class Machine:
    """The conditions of one machine, told by one of its processes. Used by one thread."""

    def __init__(
        self,
        settings: Settings,
        sender: AlertSender,
        *,
        first: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`first`: this process tells where the lock cannot be had at all, as on a broken disk."""
        self._first = first
        self._shelter = SpoolComponents.of(settings)
        self._limits = settings.spool
        self._sender = sender
        self._now = now
        self._path = settings.data_dir.absolute() / "alerts.lock"
        self._lock: int | None = None
        self._known: dict[str, Known] = {}
        self._written = b"{}"
        self._writable = True

    def check(self, store: Store | None, away: str = "") -> None:
        """Compare and tell. `store` is None while it is away, and `away` says why.

        Raises BrokerUnavailable; what could not be told is told the next time.
        """
        if not self._mine():
            return
        try:
            self._compare(list(self._conditions(away)), store)
        finally:
            self._write()

    def close(self) -> None:
        """Let another process of the machine tell."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _conditions(self, away: str) -> Iterator[Condition]:
        host = socket.gethostname()
        if away:
            yield Condition(name="store_away", reason=away, for_s=OUTAGE_AFTER_S)
        breaker = self._shelter.breaker
        if not breaker.closed:
            cause = breaker.read_state()[0].cause
            what = f"{host} does not ask the broker any more, after {cause}: events are spooled"
            yield Condition(name="breaker_open", reason=what)
        yield from of_spool(self._shelter, self._limits)

    def _compare(self, found: list[Condition], store: Store | None) -> None:
        now = self._now()
        for condition in found:
            known = self._known.setdefault(
                condition.key, Known(condition.name, condition.told, since=now)
            )
            known.reason = condition.told
            if now - known.since < condition.for_s:
                continue
            grown = condition.count > known.count and now - known.sent_at >= RETRY_DELAY_S
            if (not known.sent_at or grown) and self._send(known, "open", now):
                known.sent_at, known.count = now, condition.count
            # Of the others the bus is told by what ends them: it is away meanwhile.
            if store is not None and not known.on_bus and known.name.startswith("spool"):
                bus.alert(store, known.name, known.reason, "open")
                known.on_bus = True
        for key in self._known.keys() - {condition.key for condition in found}:
            known = self._known[key]
            if known.on_bus and store is not None:
                bus.alert(store, known.name, known.reason, "closed")
                known.on_bus = False
            if known.sent_at and self._send(known, "closed", now):
                known.sent_at = 0.0
            if not known.on_bus and not known.sent_at:
                del self._known[key]

    def _send(self, known: Known, state: str, now: float) -> bool:
        if not self._sender.wanted:
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

    def _mine(self) -> bool:
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
            # In memory it is right, and the next look tries again.
            if self._writable:
                logger.warning("alerts: %s cannot be written (%s)", self._path, error.strerror)
            self._writable = False


def of_spool(shelter: SpoolComponents, limits: Limits) -> Iterator[Condition]:
    """What is to be said of this machine's spool."""
    host = socket.gethostname()
    try:
        size, aside = shelter.spool.size(), shelter.spool.quarantined()
    except SpoolFull as error:
        yield Condition(name="spool_unreadable", reason=f"{host}: {error}")
        return
    if damaged := shelter.spool.file.damaged():
        yield Condition(
            name="spool_damaged",
            reason=f"a damaged spool of {host} was set aside as {damaged[0]}: events may be in it",
            remedy="see what is in it, and move it away",
            count=len(damaged),
        )
    if aside:
        yield Condition(
            name="spool_aside",
            reason=f"{len(aside)} events of {host} cannot be handed over: {aside[0]}",
            remedy="correct that, and start the API again",
            count=len(aside),
        )
    if refused := shelter.spool.refused:
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
        remedy="a running API hands them over once the broker answers",
        for_s=SPOOLED_AFTER_S,
        count=size.events,
    )
    part = max(size.events / max(limits.max_events, 1), size.bytes / limits.max_bytes)
    remedy = "bring the broker back, or raise spool.max_events and spool.max_bytes"
    if part >= FULL:
        what = f"the spool of {host} is full: events are refused"
        yield Condition(name="spool_full", reason=what, remedy=remedy)
    if part >= NEARLY_FULL:
        what = f"the spool of {host} is nearly full: then events are refused"
        yield Condition(name="spool_nearly_full", reason=what, remedy=remedy)


def _read(path: Path) -> dict[str, Known]:
    """What the process before knew; nothing, where the file is new or damaged."""
    if not path.stat().st_size:
        return {}
    # Set aside as a copy: the file itself is the lock.
    told = files.read_json(path, copy=True) or {}
    try:
        return {key: Known(**known) for key, known in told.items()}
    except TypeError:
        files.set_aside(path, "it is not what was written", copy=True)
        return {}
