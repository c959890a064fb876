"""Outputs of a process's parts: a pipe for each, so that each part has a log of its own.

A supervisor makes the pipes and reads them. The process that it starts gives each of its children
the end of one, in place of its own output.
"""

import os
from collections.abc import Mapping

#: Names the pipes in a child's environment: `agent.a=7 agent.b=8`.
OUTPUTS_FD = "FLEET_OUTPUTS_FD"


def outputs_text(outputs: Mapping[str, int]) -> str:
    """The variable's value for these names and writing ends."""
    return " ".join(f"{name}={fd}" for name, fd in outputs.items())


def receive_outputs() -> dict[str, int]:
    """The writing ends that this process was given, by name; our children inherit none of them.

    Empty without a supervisor, and when called again: the variable is removed from the environment.
    """
    pairs = (word.rpartition("=") for word in os.environ.pop(OUTPUTS_FD, "").split())
    found = {name: int(fd) for name, _, fd in pairs}
    for fd in found.values():
        os.set_inheritable(fd, False)
    return found
