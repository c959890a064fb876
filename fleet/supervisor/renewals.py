"""The parts of a fleet that a reload renews: processes by the keys they read, workers by agent.

A worker gives way for a key that all read, for one of its agent's own, and for changed code. The
supervisor and the workers' host decide that alike, each from what it knows.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path

from fleet.config.settings import Settings
from fleet.supervisor.running_config import differences

#: The process with all the agents' workers.
HOST = "agents"
#: Keys of an agent that only its own worker reads, in turns.
OWN = frozenset(
    {
        "model",
        "fallbacks",
        "instructions",
        "params",
        "python",
        "command",
        "cwd",
        "env",
        "log_stderr",
        "terminal",
        "url",
        "headers",
        "max_output_bytes",
        "call_timeout_s",
        "tools",
        "max_tool_rounds",
        "dispatch_to",
        "dispatches_per_minute",
        "stream",
        "trust_done",
        "allow_empty",
    }
)
#: Folders that hold no code of agents, or that of others.
_PASSED_OVER = frozenset({"__pycache__", "node_modules", "site-packages"})
#: Folders and files of one place that are looked at: more is not a folder of agents.
_ENTRIES_MAX = 20_000


def reads(process: str, key: str) -> bool:
    """True where a process of this name may read a key."""
    section = key.partition(".")[0]
    if process in ("beat", "flower"):
        return False
    if section == "mcp" or (section == "api" and key != "api.public_url"):
        return process == "api"
    if section == "alerts":
        return process in ("api", "shared")
    return True


def renewal(before: Settings, now: Settings) -> Callable[[str, float], bool]:
    """The question whether a worker must give way, by its queue and the time of its start."""
    changed, coded = _changed_agents(before, now), _agents_with_code(now)
    newest = max(changed_code(now, 0.0).values(), default=0.0)

    def must_leave(queue: str, born_at: float) -> bool:
        served = set(now.served(queue))
        if not changed.isdisjoint(served) or not served.issubset(now.agents):
            return True
        return born_at < newest and not coded.isdisjoint(served)

    return must_leave


def _changed_agents(before: Settings, now: Settings) -> set[str]:
    changed = set()
    for key in differences(before, now):
        if not reads(HOST, key):
            continue
        table, name, own, *_ = (*key.split("."), "", "")
        if table != "agents" or own not in OWN:
            return set(now.agents)
        changed.add(name)
    return changed


def _agents_with_code(settings: Settings) -> set[str]:
    """The agents that run Python code of the configuration: their own, or that of their tools."""
    tools = {name for name, tool in settings.tools.items() if not tool.is_server}
    return {
        name
        for name, agent in settings.agents.items()
        if agent.runner == "python" or tools.intersection(agent.tools)
    }


def changed_code(settings: Settings, since: float) -> dict[Path, float]:
    """The files of code that were changed after `since`, by the wall clock, and when.

    These are the Python files of the fleet's folder, and of the packages that the configuration
    names elsewhere. Without an agent that runs code there are none.
    """
    if not _agents_with_code(settings):
        return {}
    here = Path.cwd()
    found: dict[Path, float] = {}
    for root in dict.fromkeys([here, *_packages(settings)]):
        for path in _python_files(root):
            with suppress(OSError):  # gone since
                at = path.stat().st_ctime  # a copy keeps the time of its content
                if at > since:
                    found[path.relative_to(here) if path.is_relative_to(here) else path] = at
    return found


def _packages(settings: Settings) -> Iterator[Path]:
    """The module's file, or the package's folder, of each code that the configuration names."""
    paths = [str(settings.agents[name].python or "") for name in _agents_with_code(settings)]
    paths += [str(tool.python) for tool in settings.tools.values() if not tool.is_server]
    for name in {path.partition(":")[0].partition(".")[0] for path in paths} - {""}:
        spec = PathFinder.find_spec(name, [*sys.path, str(Path.cwd())])
        if spec is None:
            continue
        for folder in spec.submodule_search_locations or ():
            yield Path(folder)
        if spec.origin and not spec.submodule_search_locations:
            yield Path(spec.origin)


def _python_files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    left = _ENTRIES_MAX
    for folder, folders, files in os.walk(root):
        left -= len(folders) + len(files)
        if left < 0:
            return
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in _PASSED_OVER
            and not Path(folder, name, "pyvenv.cfg").exists()
        ]
        yield from (Path(folder, name) for name in files if name.endswith(".py"))
