"""`fleet bench chaos`: random faults against a fleet under load, and the auditor's report.

A sender keeps twenty agents on one host busy. Each event is a turn of a few calls to a provider
over HTTP, and each call is a journalled step. During the run processes are killed and stopped, and
the broker dies and comes back on its data. A proxy cuts, resets, mutes and holds the connections to
it. All faults are drawn from `seed` before the run; the moment of a turn that they hit is chance.

At the end the faults stop, and every accepted dispatch has `TIMEOUT_S` to end. Then
`fleet.bench._auditor` checks the ledger, the bus, the provider's log and the turns' diary. It
defines `lost`, `doubled`, `overlaps`, `reordered`, `repeated_calls` and `stale_writes`, all of
which must be 0. `worst_s` is the longest time from an acceptance to its outcome. `interrupted`
counts the attempts that ended with their worker. `resumed_steps` counts the calls that a later
attempt took from the journal. `paid_again` counts the calls repeated because no journal had their
answer yet.

With `power_loss` N, N of the broker's deaths are power losses: bytes of its append-only file that
were not yet fsynced are cut off before the restart. This needs strace.
"""

import json
import random
import threading
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fleet.bench._auditor import AuditReport, History, audit
from fleet.bench._chaos_fleet import Target
from fleet.bench._contenders import names
from fleet.bench._faults import Fault, schedule
from fleet.bench._harness import Lab, Option, lab, machine, parse_options, progress, rounded
from fleet.bench._nemesis import Nemesis
from fleet.bench._power import Power
from fleet.bench._wire import ChaosNetwork
from fleet.config.settings import load
from fleet.errors import BrokerUnavailable, FleetError
from fleet.ledger import Accepted

OPTIONS: dict[str, Option] = {
    "seed": 1,
    "kills": 100,
    "seconds": 90.0,  # over which the faults are spread; more where they take longer
    "agents": 20,
    "hosts": 1,  # each with all agents: they share them by lease
    "lease_ttl_s": 2.0,
    "power_loss": 0,
    "durability": "always",
}

#: After the last fault everything must have ended within this.
TIMEOUT_S = 120.0
#: Unfinished dispatches that the sender keeps for each agent.
DEPTH = 3
STEPS = (1, 4)
CALL_S = (0.02, 0.25)
#: One event in this many goes to two agents; every second of the others belongs to a session.
PAIR_EVERY = 10
SESSIONS = 40
#: One event in this many is refused by the provider at first, and retried. One call in this many of
#: the sender accepts a batch.
REFUSED_EVERY = 7
BATCH_EVERY = 5
BATCH = 3
_RETRY_DELAY_S = 0.02
_PROGRESS_INTERVAL_S = 10.0


def run(**given: Option) -> dict[str, Any]:
    """Run the benchmark. Raises FleetError when the fleet cannot be started or read."""
    options = parse_options(OPTIONS, given)
    power = Power() if options["power_loss"] else None
    with lab(options) as where:
        evidence, done = _torment(where, options, power)
        result = audit(evidence)
        _print_violations(result, evidence, int(options["seed"]))
        return {
            "name": "chaos",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(where),
            "seed": options["seed"],
            "options": options,
            "figures": {**_figures(result), **done},
            "baseline": None,
            "ratio": None,
        }


def _torment(
    where: Lab, options: dict[str, Option], power: Power | None
) -> tuple[History, dict[str, Any]]:
    agents, hosts = names(int(options["agents"])), int(options["hosts"])
    ttl_s = float(options["lease_ttl_s"])
    with ChaosNetwork(where.endpoint.socket, hosts) as wire:
        ports = [proxy.port for proxy in wire.proxies]
        target = Target(where, agents, ports=ports, provider=wire.provider.port, ttl_s=ttl_s)
        sender = _Sender(target, int(options["seed"]))
        nemesis = Nemesis(where, target, wire, power)
        try:
            progress(f"starting {hosts} x {len(agents)} workers")
            target.start()
            plan = schedule(
                int(options["seed"]),
                int(options["kills"]),
                float(options["seconds"]),
                agents,
                hosts=hosts,
                ttl_s=ttl_s,
                power_losses=int(options["power_loss"]),
            )
            began = time.monotonic()
            sender.start()
            _carry_out(plan, float(options["seconds"]), nemesis, sender)
            sender.stop()
            nemesis.heal()
            drained_s = _drain(target)
            history = target.history(frozenset(sender.accepted), wire.provider.calls)
            return history, {
                "kills": nemesis.kills,
                "faults": dict(sorted(nemesis.done.items())),
                "bytes_cut": nemesis.bytes_cut,
                "stale_commits_refused": _refused(target),
                "events_resent": sender.resent,
                "drained_s": rounded(drained_s),
                "seconds": rounded(time.monotonic() - began),
            }
        finally:
            sender.stop()
            nemesis.heal()
            target.stop()
            if power is not None:
                power.stop()


def _carry_out(plan: list[Fault], seconds: float, nemesis: Nemesis, sender: "_Sender") -> None:
    """Carry out the plan with its pauses: a fault that takes long delays all later faults."""
    began = reported = time.monotonic()
    planned_s = 0.0
    for fault in (*plan, None):
        at_s = fault.at_s if fault else seconds
        until, planned_s = time.monotonic() + at_s - planned_s, at_s
        while (wait_s := until - time.monotonic()) > 0:
            time.sleep(min(wait_s, 0.5))
            sender.check()
        if fault is not None:
            nemesis.do(fault)
        if time.monotonic() - reported > _PROGRESS_INTERVAL_S:
            reported = time.monotonic()
            progress(
                f"{reported - began:.0f} s: {nemesis.kills} kills, "
                f"{sum(nemesis.done.values())} faults, "
                f"{len(sender.accepted)} dispatches accepted"
            )


def _drain(target: Target) -> float:
    """Wait at most TIMEOUT_S until every dispatch has an outcome; return the time it took."""
    began = time.monotonic()
    while time.monotonic() - began < TIMEOUT_S:
        try:
            if not target.unfinished():
                break
        except BrokerUnavailable:
            progress("the broker is not back yet")
        time.sleep(0.2)
    return time.monotonic() - began


class _Sender:
    """A sender in its own thread that keeps each agent busy; unanswered events are resent."""

    def __init__(self, target: Target, seed: int) -> None:
        self.accepted: set[str] = set()
        self.resent = 0
        self._sent = 0
        self._target = target
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the answer to the current event."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        """Raise FleetError when the thread has failed."""
        if self._error is not None:
            raise FleetError(f"The sender failed: {self._error!r}") from self._error

    def _run(self) -> None:
        try:
            calls = 0
            while not self._over.is_set():
                if self._room():
                    calls += 1
                    self._send(self._events(BATCH if calls % BATCH_EVERY == 0 else 1))
                else:
                    time.sleep(_RETRY_DELAY_S)
        except BaseException as error:  # noqa: BLE001 - raised by `check` in the main thread
            self._error = error

    def _room(self) -> bool:
        try:
            return self._target.unfinished() < DEPTH * len(self._target.agents)
        except BrokerUnavailable:
            return False

    def _events(self, count: int) -> list[dict[str, Any]]:
        self._sent += count
        return [self._event(number) for number in range(self._sent - count + 1, self._sent + 1)]

    def _event(self, number: int) -> dict[str, Any]:
        draw = self._random
        text = f"{draw.randint(*STEPS)} {draw.uniform(*CALL_S):.3f}"
        if number % REFUSED_EVERY == 0:
            text += " fail"
        event: dict[str, Any] = {"id": f"e{number}", "source": "chaos", "text": text}
        if number % PAIR_EVERY == 0:
            return event | {"to": draw.sample(self._target.agents, 2)}
        if number % 2:
            event["session"] = f"s{draw.randrange(SESSIONS)}"
        return event | {"to": draw.choice(self._target.agents)}

    def _send(self, events: list[dict[str, Any]]) -> None:
        while True:
            try:
                answers = self._target.intake.accept_batch(events)
            except BrokerUnavailable:
                self.resent += len(events)
                time.sleep(_RETRY_DELAY_S)
                continue
            for answer in answers:
                if not isinstance(answer, Accepted):
                    raise answer
                self.accepted |= {dispatch_id for dispatch_id, _ in answer.dispatches}
            return


def _refused(target: Target) -> int:
    """The number of outcomes refused because their lease was lost."""
    return target.log.read_text(errors="replace").count("outcome refused")


def _figures(result: AuditReport) -> dict[str, Any]:
    counted = ("lost", "doubled", "overlaps", "reordered", "repeated_calls", "stale_writes")
    return {
        "accepted": result.accepted,
        "completed": result.outcomes.get("completed", 0),
        **{name: len(getattr(result, name)) for name in counted},
        "worst_s": rounded(result.worst_s),
        "outcomes": result.outcomes,
        "interrupted": result.interrupted,
        "resumed_steps": result.resumed_steps,
        "paid_again": result.paid_again,
    }


def _print_violations(result: AuditReport, history: History, seed: int) -> None:
    """Print violations on standard error, and write the whole history to the data folder."""
    if not result.violations:
        return
    for violation in result.violations:
        progress(f"VIOLATION {violation}")
    path = Path(load().data_dir).absolute() / f"chaos-{seed}.json"
    reported = asdict(history) | {"accepted": sorted(history.accepted)}
    path.write_text(json.dumps(reported, default=str))
    progress(f"the whole history is in {path}")
