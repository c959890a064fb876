"""Taking a changed configuration into a running fleet.

The file is read and checked whole first: a broken one changes nothing. Then the processes that read
what has changed get it. The agents' host gives each worker a successor when its turn has ended; the
others end in order and start again. A removed agent's worker ends after its turn, and its waiting
work is kept for `fleet queue move`. The other keys need another `fleet up`, and are told.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.config.settings import Settings
from fleet.errors import BrokerUnavailable, FleetError
from fleet.ledger import agent_rows, removed
from fleet.store import Store
from fleet.supervisor.processes import HOST, WORKER_READY_S, Addresses, fleet_processes
from fleet.supervisor.running_config import Change, RunningConfig
from fleet.supervisor.supervise import Supervisor
from fleet.system.clock import boottime
from fleet.system.reload_answer import ReloadAnswer

#: What there is to warn of; raises FleetError for settings that a fleet cannot start with.
Check = Callable[[Settings], list[str]]

POLL_INTERVAL_S = 0.1
#: Agents whose turns end within this are not told of.
TURNS_S = 2.0


@dataclass
class Reloads:
    """The reloads of one running fleet, one after the other. `request` asks for the next."""

    config: RunningConfig
    addresses: Addresses
    store: Store
    listener: int  #: the API's socket
    supervisor: Supervisor
    check: Check
    report: Callable[[str], None]
    _requested: asyncio.Event = field(default_factory=asyncio.Event)

    def request(self) -> None:
        """Ask for a reload, which begins when the one before has ended."""
        self._requested.set()

    async def run(self) -> None:
        """Reload at each request, until cancelled."""
        await self.supervisor.ready.wait()
        self._answer(ReloadAnswer.of_this_process())
        while True:
            await self._requested.wait()
            self._requested.clear()
            began = boottime()
            try:
                lines, ok = await self._reload(), True
            except FleetError as error:
                lines, ok = [str(error)], False
            for line in lines:
                self.report(f"fleet: reload: {line}")
            self._answer(ReloadAnswer.of_this_process(began, ok, lines))

    def _answer(self, answer: ReloadAnswer) -> None:
        try:
            answer.write(self.config.settings.data_dir)
        except OSError as error:
            self.report(f"fleet: the answer to `fleet reload` cannot be written: {error.strerror}")

    async def _reload(self) -> list[str]:
        """Take the file's changes; what there is to say. Raises FleetError."""
        began, before = time.monotonic(), self.config.settings
        change, told = await asyncio.to_thread(self._checked)
        if not change.keys:
            return [*told, "nothing else has changed" if told else "nothing has changed"]
        names = list(dict.fromkeys((*before.agents, *change.settings.agents)))
        fences = {
            name: row["fence"]
            for name, row in (await self._rows(names)).items()
            if not _is_elsewhere(row["holder"])
        }
        try:
            self.config.take(change)
        except OSError as error:
            raise FleetError(f"nothing was changed: {error.filename} {error.strerror}") from error
        specs = fleet_processes(change.settings, self.addresses, self.store, self.listener)
        touched = {spec.name for spec in specs if any(_reads(spec.name, k) for k in change.keys)}
        try:
            await self.supervisor.change(specs, touched)
        except FleetError as error:
            raise FleetError(f"the changes are taken, but {error}") from error
        busy = await self._await_successors(fences, change.settings) if HOST in touched else []
        return [
            *_agents(before, change.settings),
            f"changed: {', '.join(change.keys)}",
            *told,
            *(f"{name} ends its turn with the settings it began with" for name in busy),
            *await asyncio.to_thread(removed.lines, self.store, change.settings.agents),
            f"done after {time.monotonic() - began:.1f} s",
        ]

    def _checked(self) -> tuple[Change, list[str]]:
        """The change, and what is to be said about it. Raises FleetError."""
        try:
            change = self.config.read()
            told = self.check(change.settings)
        except FleetError as error:
            raise FleetError(f"nothing was changed: {error}") from error
        if change.fixed:
            told += [f"only a restart of `fleet up` changes {', '.join(change.fixed)}"]
        return change, told

    async def _rows(self, names: Sequence[str]) -> Mapping[str, dict[str, Any]]:
        """The rows of agents; none while the broker is away."""
        try:
            return await asyncio.to_thread(agent_rows.rows, self.store, names)
        except BrokerUnavailable:
            return {}

    async def _await_successors(self, fences: Mapping[str, int], settings: Settings) -> list[str]:
        """Wait until no worker has the old settings; the agents that end a turn with them first.

        Raises FleetError for those that have no worker and run no turn.
        """
        until, turns_until = (time.monotonic() + s for s in (WORKER_READY_S, TURNS_S))
        names = list(fences)
        while True:
            rows = await self._rows(names)
            waiting = {name for name in names if not _has_left(rows, name, fences, settings)}
            busy = sorted(name for name in waiting if rows.get(name, {}).get("active"))
            if not waiting or (len(busy) == len(waiting) and time.monotonic() > turns_until):
                return busy
            if time.monotonic() > until:
                raise FleetError(
                    f"the changes are taken, but {', '.join(sorted(waiting.difference(busy)))} "
                    "takes no work yet; see the log."
                )
            await asyncio.sleep(POLL_INTERVAL_S)


def _is_elsewhere(holder: str | None) -> bool:
    """True for the worker of another host, which has a configuration of its own."""
    return holder is not None and holder.rpartition(":")[0] != socket.gethostname()


def _has_left(
    rows: Mapping[str, dict[str, Any]], name: str, fences: Mapping[str, int], settings: Settings
) -> bool:
    """True when an agent's worker has the new settings, or has gone where the agent was removed."""
    if name not in rows:
        return False
    if name not in settings.agents:
        return not rows[name]["online"]
    return bool(rows[name]["consuming"]) and rows[name]["fence"] != fences.get(name)


def _agents(before: Settings, now: Settings) -> list[str]:
    added = [name for name in now.agents if name not in before.agents]
    gone = [name for name in before.agents if name not in now.agents]
    lines = [f"added: {', '.join(added)}"] if added else []
    return [*lines, f"removed: {', '.join(gone)}"] if gone else lines


def _reads(process: str, key: str) -> bool:
    """True where a process of this name may read a key."""
    section = key.partition(".")[0]
    if process in ("beat", "flower"):
        return False
    if section == "mcp" or (section == "api" and key != "api.public_url"):
        return process == "api"
    if section == "alerts":
        return process in ("api", "shared")
    return True
