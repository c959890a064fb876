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

With `outages` N the target is `fleet up`, and its broker has N outages instead: see
`fleet.bench._outages`.

The exit code is 1 when a promise was broken. Then the folder of the run is kept.
"""

import json
import random
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from fleet.bench._auditor import KINDS, AuditReport, History, audit
from fleet.bench._chaos_fleet import Target
from fleet.bench._contenders import names
from fleet.bench._faults import schedule
from fleet.bench._harness import (
    Lab,
    Option,
    SenderThread,
    lab,
    machine,
    parse_options,
    progress,
    rounded,
)
from fleet.bench._nemesis import Nemesis, carry_out
from fleet.bench._outages import NOT_PROMISED, outages
from fleet.bench._power import Power
from fleet.bench._wire import ChaosNetwork
from fleet.errors import BrokerUnavailable
from fleet.intake.intake import Submission
from fleet.ledger import Accepted

OPTIONS: dict[str, Option] = {
    "seed": 1,
    "kills": 100,
    "seconds": 90.0,  # over which the faults are spread; more where they take longer
    "agents": 20,
    "hosts": 1,  # each with all agents: they share them by lease
    "pool": 0,  # processes of a pool on each host, for all agents; 0: a worker for each agent
    "lease_ttl_s": 2.0,
    "power_loss": 0,
    "outages": 0,  # with these, no other fault; `kills` and `seconds` follow from them
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


def run(**given: Option) -> dict[str, Any]:
    """Run the benchmark. Raises FleetError when the fleet cannot be started or read."""
    options = parse_options(OPTIONS, given)
    power = Power() if options["power_loss"] else None
    with lab(options) as where:
        if options["outages"]:
            evidence, done = outages(where, options)
            promised = [kind for kind in KINDS if kind not in NOT_PROMISED]
        else:
            evidence, done = _torment(where, options, power)
            promised = list(KINDS)
        result = audit(evidence)
        broken = sum(result.counts(promised).values())
        if broken:
            _keep(result, evidence, where)
        return {
            "name": "chaos",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(where),
            "seed": options["seed"],
            "options": options,
            "broken": broken,
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
        provider, pool = wire.provider.port, int(options["pool"])
        target = Target(where, agents, ports=ports, provider=provider, ttl_s=ttl_s, processes=pool)
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
            carry_out(plan, float(options["seconds"]), nemesis, sender)
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


class _Sender(SenderThread):
    """A sender in its own thread that keeps each agent busy; unanswered events are resent."""

    def __init__(self, target: Target, seed: int) -> None:
        super().__init__()
        self.accepted: set[str] = set()
        self.resent = 0
        self._sent = 0
        self._target = target
        self._random = random.Random(seed)

    def run(self) -> None:
        """See `SenderThread`."""
        calls = 0
        while not self.over.is_set():
            if self._room():
                calls += 1
                self._send(self._events(BATCH if calls % BATCH_EVERY == 0 else 1))
            else:
                time.sleep(_RETRY_DELAY_S)

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
                answers = self._target.intake.accept_batch([Submission(event) for event in events])
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
    return {
        "accepted": result.accepted,
        "completed": result.outcomes.get("completed", 0),
        **result.counts(),
        "worst_s": rounded(result.worst_s),
        "outcomes": result.outcomes,
        "offline": result.offline,
        "interrupted": result.interrupted,
        "resumed_steps": result.resumed_steps,
        "paid_again": result.paid_again,
    }


def _keep(result: AuditReport, history: History, where: Lab) -> None:
    """Print violations on standard error, and keep the lab's folder with the whole history."""
    for violation in result.violations:
        progress(f"VIOLATION {violation}")
    where.kept = True
    reported = asdict(history) | {"accepted": sorted(history.accepted)}
    (where.folder / "history.json").write_text(json.dumps(reported, default=str))
    progress(f"the whole history, and all that the processes printed, is in {where.folder}")
