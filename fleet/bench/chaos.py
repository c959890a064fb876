"""`fleet bench chaos`: random faults against a fleet under load, and an auditor's judgement.

Twenty agents on one host work off events that a sender keeps coming, each a turn of a few calls to
a provider over HTTP, each call a journalled step. Meanwhile processes are killed and stopped, the
broker dies and comes back on its data, and the connections to it are cut, reset, muted and held by
a proxy. What happens when is drawn from `seed` before the run; which moment of which turn is hit is
chance.

At the end the faults stop, everything accepted has `TIMEOUT_S` to end, and `fleet.bench._auditor`
judges what is left: the ledger, the bus, the provider's log and the turns' diary. What `lost`,
`doubled`, `overlaps`, `reordered`, `repeated_calls` and `stale_writes` mean is said there; they
have to be 0. `worst_s` is the longest time from an acceptance to its outcome, `interrupted` the
attempts that ended with their worker, `resumed_steps` the calls that the next attempt took from the
journal, `paid_again` those it had to make again, because no journal had got their answer yet.

With `power_loss` N, N of the broker's deaths are power losses: what was written to its append-only
file but not yet fsynced is cut off before it starts again. That needs strace.
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
from fleet.bench._harness import Lab, Option, lab, machine, progress, rounded, settle
from fleet.bench._nemesis import Nemesis
from fleet.bench._power import Power
from fleet.bench._wire import EventPipe
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
#: One event in so many goes to two agents; of the others every second belongs to a session.
PAIR_EVERY = 10
SESSIONS = 40
#: One event in so many is refused by the provider at first, and tried again; one call of the sender
#: in so many accepts a batch.
REFUSED_EVERY = 7
BATCH_EVERY = 5
BATCH = 3
_RETRY_DELAY_S = 0.02
_TELL_S = 10.0


def run(**given: Option) -> dict[str, Any]:
    """Torment a fleet; see the module. Raises FleetError when it cannot be started or read."""
    options = settle(OPTIONS, given)
    power = Power() if options["power_loss"] else None
    with lab(options) as where:
        evidence, done = _torment(where, options, power)
        verdict = audit(evidence)
        _tell(verdict, evidence, int(options["seed"]))
        return {
            "name": "chaos",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(where),
            "seed": options["seed"],
            "options": options,
            "figures": {**_figures(verdict), **done},
            "baseline": None,
            "ratio": None,
        }


def _torment(
    where: Lab, options: dict[str, Option], power: Power | None
) -> tuple[History, dict[str, Any]]:
    agents, hosts = names(int(options["agents"])), int(options["hosts"])
    ttl_s = float(options["lease_ttl_s"])
    with EventPipe(where.endpoint.socket, hosts) as wire:
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
                power.end()


def _carry_out(plan: list[Fault], seconds: float, nemesis: Nemesis, sender: "_Sender") -> None:
    """Keep the pauses of the plan: no hail of faults makes up for one that took longer."""
    began = told = time.monotonic()
    planned_s = 0.0
    for fault in (*plan, None):
        at_s = fault.at_s if fault else seconds
        until, planned_s = time.monotonic() + at_s - planned_s, at_s
        while (wait_s := until - time.monotonic()) > 0:
            time.sleep(min(wait_s, 0.5))
            sender.check()
        if fault is not None:
            nemesis.do(fault)
        if time.monotonic() - told > _TELL_S:
            told = time.monotonic()
            progress(
                f"{told - began:.0f} s: {nemesis.kills} kills, {sum(nemesis.done.values())} faults,"
                f" {len(sender.accepted)} dispatches accepted"
            )


def _drain(target: Target) -> float:
    """Wait until everything has an outcome, or PATIENCE_S have passed; how long it took."""
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
    """Keeps each agent busy from a thread of its own; what is not answered it sends again."""

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
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more, once the event at hand is answered."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        """Raise FleetError when sending has come to an end by itself."""
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
        except BaseException as error:  # noqa: BLE001 - told by `check` in the main thread
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
    """How often a worker was told that its outcome comes too late."""
    return target.log.read_text(errors="replace").count("outcome refused")


def _figures(verdict: AuditReport) -> dict[str, Any]:
    counted = ("lost", "doubled", "overlaps", "reordered", "repeated_calls", "stale_writes")
    return {
        "accepted": verdict.accepted,
        "completed": verdict.outcomes.get("completed", 0),
        **{name: len(getattr(verdict, name)) for name in counted},
        "worst_s": rounded(verdict.worst_s),
        "outcomes": verdict.outcomes,
        "interrupted": verdict.interrupted,
        "resumed_steps": verdict.resumed_steps,
        "paid_again": verdict.paid_again,
    }


def _tell(verdict: AuditReport, history: History, seed: int) -> None:
    """Violations go to standard error, and the whole history next to the data folder's runs."""
    if not verdict.violations:
        return
    for violation in verdict.violations:
        progress(f"VIOLATION {violation}")
    path = Path(load().data_dir).absolute() / f"chaos-{seed}.json"
    told = asdict(history) | {"accepted": sorted(history.accepted)}
    path.write_text(json.dumps(told, default=str))
    progress(f"the whole history is in {path}")
