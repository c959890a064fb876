"""The Python code that the configuration names: imported in a process that may hang or end."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

from fleet.broker.audit import Finding
from fleet.config.settings import Settings
from fleet.system.process_group import kill_session
from tasks.execution import CODE_CHECK_COMMAND

#: The longest import of one module, and the longest start of the process that does it.
IMPORT_TIMEOUT_S = 10.0
START_TIMEOUT_S = 60.0


class _Code(NamedTuple):
    key: str
    kind: str
    path: str  #: `package.module:name`


def check_code(settings: Settings) -> Iterator[Finding]:
    """The findings: an error where no turn could go well, a warning where it is not certain."""
    waiting = []
    for code in _named(settings):
        if _is_installed(code.path):
            waiting.append(code)
            continue
        fault = f"{code.key}: there is no module {code.path!r}"
        yield Finding("error", fault, "install it, or start the fleet in its folder")
    while waiting:
        answers, end = _imported(waiting)
        for code, (fault, certain) in zip(waiting, answers, strict=False):
            if fault:
                what = f"{code.key}: {code.path} {fault}"
                yield Finding(
                    "error" if certain else "warning", what, "correct the code or its name"
                )
        waiting = waiting[len(answers) :]
        if waiting:
            code, *waiting = waiting
            yield Finding("warning", f"{code.key}: {code.path} {end}", "correct its import")


def _named(settings: Settings) -> Iterator[_Code]:
    for name, agent in settings.agents.items():
        if agent.runner == "python":
            yield _Code(f"agents.{name}.python", "agent", str(agent.python))
    for name, tool in settings.tools.items():
        if not tool.is_server:
            yield _Code(f"tools.{name}.python", "tools", str(tool.python))


def _is_installed(path: str) -> bool:
    package = path.partition(":")[0].partition(".")[0]
    return PathFinder.find_spec(package, [*sys.path, str(Path.cwd())]) is not None


def _imported(wanted: list[_Code]) -> tuple[list[tuple[str, bool]], str]:
    """The answers of one process, in order, and why those that are missing are."""
    named = json.dumps([(code.kind, code.path) for code in wanted])
    with subprocess.Popen(
        [*CODE_CHECK_COMMAND, named],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            return _read(process.stdout.fileno(), len(wanted))
        finally:
            kill_session(process.pid)


def _read(pipe: int, count: int) -> tuple[list[tuple[str, bool]], str]:
    text, end = b"", "is not imported: the process that does that has not started"
    until = time.monotonic() + START_TIMEOUT_S
    while text.count(b"\n") <= count:  # its first line says that it has started
        left_s = max(0.0, until - time.monotonic())
        if not select.select([pipe], [], [], left_s)[0]:
            break
        piece = os.read(pipe, 65536)
        if not piece:
            end = "ends the process that imports it"
            break
        until = time.monotonic() + IMPORT_TIMEOUT_S
        end = f"is not imported after {IMPORT_TIMEOUT_S:g} s"
        text += piece
    lines = text.split(b"\n")[1:-1]
    return [(str(fault), bool(certain)) for fault, certain in map(json.loads, lines)], end
