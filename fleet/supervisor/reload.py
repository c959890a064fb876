"""Taking a changed configuration into a running fleet.

The file is read and checked whole first: a broken one changes nothing. Then the processes that read
what has changed get it. The agents' host gives a worker with changed settings or code a successor
when its turn has ended; the others end in order and start again. Where one does not come up, all
get the configuration before. A removed agent's worker ends after its turn, and its waiting work is
kept for `fleet queue move`. The other keys need another `fleet up`, and are told.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.config.settings import Settings
from fleet.errors import BrokerUnavailable, FleetError
from fleet.ledger import agent_rows, removed
from fleet.store import Store
from fleet.supervisor.processes import WORKER_READY_S, Addresses, fleet_processes
from fleet.supervisor.renewals import HOST, changed_code, reads, renewal
from fleet.supervisor.running_config import Change, RunningConfig
from fleet.supervisor.supervise import Supervisor
from fleet.system.clock import boottime
from fleet.system.reload_answer import ReloadAnswer

#: What there is to warn of; raises FleetError for settings that a fleet cannot start with.
Check = Callable[[Settings], list[str]]

POLL_INTERVAL_S = 0.1
#: Agents whose turns end within this are not told of.
TURNS_S = 2.0
#: Changed files of code that are told by name.
FILES_MAX = 5


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
    #: Code that was changed after this, by the wall clock, no process may have read.
    code_at: float = field(default_factory=time.time)
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
        began, looked_at, before = time.monotonic(), time.time(), self.config.running
        change, told = await asyncio.to_thread(self._checked)
        code = await asyncio.to_thread(changed_code, change.settings, self.code_at)
        if not change.keys and not code:
            return [*told, "nothing else has changed" if told else "nothing has changed"]
        of_agents = await self._taken_or_undone(before, change, code=bool(code))
        self.code_at = looked_at
        return [
            *_agents(before.settings, change.settings),
            f"changed: {', '.join([*change.keys, *_files(code)])}",
            *told,
            *of_agents,
            *await asyncio.to_thread(removed.lines, self.store, change.settings.agents),
            f"done after {time.monotonic() - began:.1f} s",
        ]

    async def _taken_or_undone(self, before: Change, change: Change, *, code: bool) -> list[str]:
        """Have the processes take a change, or go back to `before`; what there is to say of agents.

        Raises FleetError.
        """
        fences, down = await self._fences(before.settings, change.settings)
        self._publish(change)
        try:
            touched = await self._renew(change, change.keys, code=code)
            of_agents: list[str] = []
            if HOST in touched:
                of_agents = await self._await_successors(fences, change.settings)
        except FleetError as error:
            fault = str(error).rstrip(".")
            try:
                self._publish(before)
                await self._renew(before, change.keys, code=code)
            except FleetError as other:
                raise FleetError(f"{fault}; nor can the fleet go back: {other}") from error
            raise FleetError(f"nothing was changed: {fault}; see the log.") from error
        return [
            *of_agents,
            *(f"{name} took no work before; see `fleet logs {name}`" for name in down),
        ]

    def _publish(self, change: Change) -> None:
        """Have the processes that start from now on read a change. Raises FleetError."""
        try:
            self.config.take(change)
        except OSError as error:
            raise FleetError(f"nothing was changed: {error.filename} {error.strerror}") from error

    async def _renew(self, change: Change, keys: Sequence[str], *, code: bool) -> set[str]:
        """Have each process that reads these keys, or code, read it anew; the names of those.

        Raises FleetError where one does not come up.
        """
        specs = fleet_processes(change.settings, self.addresses, self.store, self.listener)
        touched = {spec.name for spec in specs if any(reads(spec.name, key) for key in keys)}
        if code:
            touched |= {spec.name for spec in specs if spec.runs_turns}
        await self.supervisor.change(specs, touched)
        return touched

    async def _fences(self, before: Settings, now: Settings) -> tuple[dict[str, int], list[str]]:
        """The tokens, by agent, of the workers here that a change replaces, starts or ends.

        Then the agents that had no worker which takes work: no fault of the change.
        """
        must_leave = await asyncio.to_thread(renewal, before, now)
        names = list(dict.fromkeys((*before.agents, *now.agents)))
        at, fences, down = time.time(), {}, []
        for name, row in (await self._rows(names)).items():
            if _is_elsewhere(row["holder"]):
                continue
            if name not in before.agents:
                fences[name] = row["fence"]
            elif name not in now.agents or must_leave(now.queue(name), at - row["held_s"]):
                if row["consuming"]:
                    fences[name] = row["fence"]
                elif name in now.agents:
                    down.append(name)
        return fences, down

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
        """Wait until no worker has the old settings; what there is to say of those that have.

        Raises FleetError for agents that nobody works for.
        """
        until, turns_until = (time.monotonic() + s for s in (WORKER_READY_S, TURNS_S))
        names = list(fences)
        while True:
            rows = await self._rows(names)
            waiting = [name for name in names if not _has_left(rows, name, fences, settings)]
            busy = sorted(name for name in waiting if rows.get(name, {}).get("active"))
            late = time.monotonic() > until
            if (
                late
                or not waiting
                or (len(busy) == len(waiting) and time.monotonic() > turns_until)
            ):
                break
            await asyncio.sleep(POLL_INTERVAL_S)
        stays = sorted(name for name in waiting if name not in busy and _stays(rows, name, fences))
        gone = sorted({*waiting}.difference(busy, stays))
        if gone:
            raise FleetError(f"{', '.join(gone)} has taken no work after {WORKER_READY_S:g} s")
        return [
            *(f"{name} ends its turn with the settings it began with" for name in busy),
            *(f"{name} keeps the settings of before: its worker does not leave" for name in stays),
        ]


def _stays(rows: Mapping[str, dict[str, Any]], name: str, fences: Mapping[str, int]) -> bool:
    """True when the worker of before still serves an agent: no successor has failed."""
    row = rows.get(name, {})
    return bool(row.get("online")) and 0 < row["fence"] == fences[name]


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


def _files(code: Mapping[Path, float]) -> list[str]:
    """Changed files in words, the first ones by name."""
    if not code:
        return []
    names = [str(path) for path in sorted(code)]
    more = f" and {len(names) - FILES_MAX} more" if len(names) > FILES_MAX else ""
    return [f"code in {', '.join(names[:FILES_MAX])}{more}"]
