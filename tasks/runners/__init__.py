"""The runners, by the name that `agents.NAME.runner` gives.

`fleet.config.agents` names the built-in ones too, and the keys that each needs.
"""

from functools import cache
from importlib.metadata import entry_points

from fleet.config.agents import AgentConfig
from fleet.errors import ConfigError
from fleet.turn.turn import Runner


def runner_for(agent: AgentConfig) -> Runner:
    """The runner of an agent. Raises ConfigError for a kind that is not installed."""
    return _load(agent.runner)


@cache
def _load(kind: str) -> Runner:
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
