"""`fleet bench chaos --outages N`: outages of the broker of `fleet up`, under load by every door.

The broker is stopped, killed, restarted, hung, and runs out of memory or disk. It stays away for a
few seconds, so that events go to the spool; in longer outages they run offline. Meanwhile three
senders go on by HTTP, `fleet send` and Celery (`fleet.bench._doors`), and processes are killed at
random: API, commands, workers, offline execution, the supervisor, everything at once.

At the end the outage ends, every event that the senders remember is sent again, and every accepted
dispatch has `DRAIN_S_MAX` to reach the ledger and to end there. Then the auditor judges, as in a
run without outages. The order of events is no promise in an outage: an event that runs offline may
overtake one that waits for the ledger.
"""

import time
from pathlib import Path
from typing import Any

from fleet.bench._auditor import History
from fleet.bench._contenders import names
from fleet.bench._doors import Book, Doors
from fleet.bench._faults import KILL_AFTER_S, outage_schedule
from fleet.bench._harness import Lab, Option, progress, rounded
from fleet.bench._nemesis import OutageNemesis, carry_out
from fleet.bench._outage_fleet import UpFleet
from fleet.bench._wire import ChaosNetwork
from fleet.errors import BrokerUnavailable, FleetError

#: The kind of the auditor that is printed, but breaks no promise here.
NOT_PROMISED = ("reordered",)
DRAIN_S_MAX = 120.0
#: Unfinished dispatches for each agent at which the senders wait.
DEPTH = 15


class _Throttled:
    """The senders, which wait while too much waits in the ledger."""

    def __init__(self, fleet: UpFleet, doors: Doors) -> None:
        self._fleet, self._doors = fleet, doors

    @property
    def accepted(self) -> dict[str, tuple[str, int]]:
        """The accepted dispatches."""
        return self._doors.accepted

    def check(self) -> None:
        """Raise FleetError when a sender has failed; slow all down where they are too many."""
        self._doors.check()
        try:
            waiting = self._fleet.unfinished()
        except BrokerUnavailable:
            waiting = 0
        self._doors.pause(paused=waiting > DEPTH * len(self._fleet.agents))


def outages(where: Lab, options: dict[str, Option]) -> tuple[History, dict[str, Any]]:
    """Run the outages; returns the records and the figures of the run."""
    seed, agents = int(options["seed"]), names(int(options["agents"]))
    plan = outage_schedule(seed, int(options["outages"]), agents)
    with ChaosNetwork("", 0) as wire:
        ttl_s = float(options["lease_ttl_s"])
        fleet = UpFleet(where, agents, provider=wire.provider.port, ttl_s=ttl_s)
        book = Book()
        doors = Doors(fleet, book, seed)
        nemesis = OutageNemesis(fleet)
        try:
            progress(f"starting a fleet of {len(agents)} agents")
            fleet.start()
            began = time.monotonic()
            doors.start()
            senders = _Throttled(fleet, doors)
            carry_out(plan, plan[-1].at_s + KILL_AFTER_S, nemesis, senders)
            nemesis.heal()
            doors.stop()
            doors.check()
            fleet.await_ready()
            doors.send_again()
            doors.collect()
            drained_s = _drain(fleet, book)
            where.endpoint = fleet.endpoint() or where.endpoint
            found = fleet.history(
                frozenset(book.accepted),
                wire.provider.calls,
                in_outage=_in_outage(book, nemesis),
                contradictions=tuple(book.contradictions),
            )
            return found, {
                **_faults(nemesis),
                **book.figures(),
                "folder_bytes": _size(where.folder),
                "drained_s": rounded(drained_s),
                "seconds": rounded(time.monotonic() - began),
            }
        except FleetError:
            where.kept = True
            progress(f"all that the processes printed is in {where.folder}")
            raise
        finally:
            nemesis.heal()
            doors.stop()
            fleet.stop()


def _drain(fleet: UpFleet, book: Book) -> float:
    """Wait at most DRAIN_S_MAX until every accepted dispatch has ended; return the time it took."""
    began = time.monotonic()
    accepted = set(book.accepted)
    while time.monotonic() - began < DRAIN_S_MAX:
        try:
            if not fleet.unfinished() and not fleet.unknown(accepted):
                break
        except BrokerUnavailable:
            progress("the broker is not back yet")
        time.sleep(0.2)
    return time.monotonic() - began


def _in_outage(book: Book, nemesis: OutageNemesis) -> dict[str, str]:
    """The dispatches that were accepted while the broker was away, and how."""
    return {
        dispatch_id: f"{door}, while the broker was {kind}"
        for dispatch_id, (door, at_ns) in book.accepted.items()
        for from_ns, to_ns, kind in nemesis.outages
        if from_ns <= at_ns <= to_ns
    }


def _faults(nemesis: OutageNemesis) -> dict[str, Any]:
    lasted = [to_ns - from_ns for from_ns, to_ns, _ in nemesis.outages]
    outages = [kind for _, _, kind in nemesis.outages]
    return {
        "outages": {kind: outages.count(kind) for kind in sorted(set(outages))},
        "away_s": rounded(sum(lasted) / 1e9),
        "kills": nemesis.kills,
        "faults": dict(sorted(nemesis.done.items())),
        "kills_without_victim": dict(sorted(nemesis.missed.items())),
    }


def _size(folder: Path) -> int:
    """The bytes in a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
