"""The runners, by the name that `agents.NAME.runner` gives.

`fleet.config.agents` names the built-in ones too, and the keys that each needs.
"""

from functools import cache
from importlib.metadata import entry_points

from fleet.errors import ConfigError
from fleet.turn.turn import Runner


@cache
def runner_for(kind: str) -> Runner:
    """The runner of a kind of agent. Raises ConfigError for a kind that is not installed."""
    if kind == "llm":
        from tasks.runners.llm import LlmRunner

        return LlmRunner()
    if kind == "python":
        from tasks.runners.python import PythonRunner

        return PythonRunner()
    if kind == "command":
        from tasks.runners.command import CommandRunner

        return CommandRunner()
    if kind == "pty":
        from tasks.runners.pty import PtyRunner

        return PtyRunner()
    if kind == "http":
        from tasks.runners.http import HttpRunner

        return HttpRunner()
    for entry in entry_points(group="fleet.runners", name=kind):
        runner: Runner = entry.load()()
        return runner
    raise ConfigError(f"runner {kind!r} is not installed: no entry point `fleet.runners` has it.")
