"""The faults of the Python code that a configuration names, found by importing it.

`python -m tasks.code_check JSON` for a list of `[kind, "package.module:name"]`, where the kind is
`agent` or `tools`. It answers in an empty line when it has started, and then in a line of JSON for
each, in order: an empty string or the fault, and whether that is certain. The code may do anything
when it is imported. So this is a process of its own, which no thread of the code keeps alive, and
where the code's output goes nowhere.
"""

import json
import os
import sys
import traceback
from typing import Any

from fleet.tools.functions import FunctionToolbox
from fleet.turn.turn import TurnFailed
from routing.nearest_name import nearest
from tasks.agent_callable import fault_of, return_fault_of
from tasks.imports import imported


def check(kind: str, path: str) -> tuple[str, bool]:
    """The fault as the end of a sentence about `path`; True where no turn could go well."""
    try:
        target = imported(path)
    except TurnFailed as failed:
        return _import_fault(path, failed.__cause__ or failed)
    except SyntaxError as error:
        return f"has a syntax error in {error.filename}, line {error.lineno}", True
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the code does, it is told
        return _raised(error), False
    return _fault(kind, target)


def _fault(kind: str, target: Any) -> tuple[str, bool]:
    if kind == "tools":
        try:
            FunctionToolbox(target)
        except ValueError as error:
            return str(error), True
        return "", False
    if fault := fault_of(target):
        return fault, True
    return return_fault_of(target) or "", False


def _import_fault(path: str, error: BaseException) -> tuple[str, bool]:
    module, _, name = path.partition(":")
    if isinstance(error, AttributeError):
        if module not in sys.modules:  # its own code raised that
            return _raised(error), False
        known = [one for one in vars(sys.modules[module]) if not one.startswith("_")]
        meant = nearest(name, known)
        return f"has no {name}{f', but has {meant}' if meant else ''}", True
    return f"cannot be imported: {error}", True


def _raised(error: BaseException) -> str:
    """The type and the place; a message may hold content."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"raises {type(error).__name__} when it is imported{place}"


def _main(wanted: list[tuple[str, str]]) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    answers.write("\n")
    for kind, path in wanted:
        answer: Any = check(kind, path)
        answers.write(json.dumps(answer) + "\n")
    answers.flush()
    os._exit(0)  # whatever threads the code has started


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
