"""Starts: from `fleet up` of the built-in fleet to ready, and the CPU time that it takes.

    fleet bench startup [--rounds 5] [--against FOLDER]

Ready is when events are accepted and every agent consumes. CPU time is that of all processes until
then, user and system; a busy machine spoils it less than the seconds.

The baseline is the smallest thing that could run a task: the same broker and one bare Celery
worker. `--against` names another checkout of the fleet with its `.venv`, whose `fleet up` is then
the baseline: so a change is compared with what was there before, on one machine in one run.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

from fleet.bench._contenders import BARE, Bare
from fleet.bench._harness import Bench, Figures, Lab, Option, bench, rounded
from fleet.bench._proc import cpu_s, family
from fleet.errors import ConfigError, FleetError
from fleet.system.process_group import kill_session

OPTIONS: dict[str, Option] = {"seed": 1, "rounds": 5, "against": "", "durability": "everysec"}

STOP_S_MAX = 60.0


class _Up:
    """`fleet up` of a checkout, without a configuration: the built-in fleet."""

    def __init__(self, name: str, argv: Sequence[str], where: Lab) -> None:
        self.name = name
        self._argv = [*argv, "up", "--json"]
        self._lab = where

    def start(self) -> Figures:
        """Start in a new folder, measure, and stop."""
        folder = self._lab.folder / f"{self.name}-{time.monotonic_ns()}"
        folder.mkdir()
        ports = {"FLEET_API__PORT": "0", "FLEET_FLOWER__PORT": "0"}
        errors = folder / "errors.log"
        with errors.open("wb") as log:
            started = time.monotonic()
            process = subprocess.Popen(
                self._argv,
                cwd=folder,
                env={**os.environ, **ports, "FLEET_DATA_DIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            line = cast("IO[bytes]", process.stdout).readline()
            found = _figures(started, {process.pid})
            if not line or "api" not in json.loads(line):
                raise FleetError(f"{self.name} did not get ready: {errors.read_text()[-300:]}")
            return found
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S_MAX)
            finally:
                kill_session(process.pid)


class _Worker:
    """A broker and one bare Celery worker."""

    name = "celery"

    def __init__(self, where: Lab) -> None:
        self._lab = where

    def start(self) -> Figures:
        """Start the lab's broker anew, and the worker; measure, and stop the worker."""
        self._lab.broker.stop()
        started = time.monotonic()
        self._lab.endpoint = self._lab.broker.start()
        worker = Bare(self._lab, ["a"], "noop")
        try:
            worker.start()
            worker.await_ready()
            roots = {process.pid for process in worker.processes.running.values()}
            return _figures(started, {*roots, self._lab.endpoint.pid})
        finally:
            worker.stop()


def run(**given: Option) -> dict[str, Any]:
    """Run the benchmark. Raises ConfigError, and FleetError when a fleet does not get ready."""
    against = str(given.get("against", ""))
    with bench("startup", _peer(against), OPTIONS, given) as running:
        ours = _Up("fleet", [sys.executable, "-m", "fleet"], running.where)
        return running.compare([ours, _baseline(running, against)], lambda one: one.start())


def _peer(against: str) -> str:
    return f"`fleet up` of {against}" if against else f"its broker and one {BARE}"


def _baseline(running: Bench, against: str) -> _Up | _Worker:
    if not against:
        return _Worker(running.where)
    program = Path(against).absolute() / ".venv" / "bin" / "fleet"
    if not program.exists():
        raise ConfigError(f"--against: {program} does not exist; run `make venv` in that folder.")
    return _Up("against", [str(program)], running.where)


def _figures(started: float, roots: set[int]) -> Figures:
    ready_s = time.monotonic() - started
    return {"ready_s": rounded(ready_s), "cpu_s": rounded(cpu_s(family(roots)))}
