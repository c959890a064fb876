"""Modules in the folder of the fleet that have the name of another, so that one hides the other.

The fleet's processes look for a module among the installed ones first, and then in their folder.
"""

import re
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from fleet.config.settings import Settings
from fleet.errors import ConfigError
from routing import Rules

#: Of a checkout only: an installed fleet has nothing but `fleet` at the top.
_OURS = ("fleet", *(("routing", "tasks") if Rules.__module__.startswith("routing.") else ()))


def check_folder(settings: Settings) -> None:
    """Raise ConfigError for a module that cannot be found, or that hides one of the fleet's."""
    for fault, remedy in hidden_modules(settings, Path.cwd()):
        raise ConfigError(f"{fault}; {remedy}.")


def hidden_modules(settings: Settings, folder: Path) -> Iterator[tuple[str, str]]:
    """The fault and the remedy of each."""
    if folder.resolve() == Path(__file__).resolve().parents[2]:
        return  # the fleet's own checkout
    for name in sorted({*_OURS, *_libraries()}):
        if module := _module(folder, name):
            yield f"{module}: the fleet needs another module {name}", "rename this one"
    for key, name in _named(settings):
        module, other = _module(folder, name), _installed(name, folder)
        if module and other:
            fault = f"{key}: {module} is hidden by the installed module {name}"
            yield fault, "rename yours, or uninstall that one"


def _libraries() -> Iterator[str]:
    """The libraries that the fleet imports, as their modules are named."""
    try:
        wanted = requires("agent-fleet") or ()
    except PackageNotFoundError:  # run from its source
        return
    for requirement in wanted:
        if "extra ==" not in requirement:
            yield re.split(r"[^\w-]", requirement, maxsplit=1)[0].replace("-", "_")


def _named(settings: Settings) -> Iterator[tuple[str, str]]:
    """The modules that the configuration names, at the top, each with its key."""
    for section, tables in (("agents", settings.agents), ("tools", settings.tools)):
        for name, table in tables.items():
            if table.python:
                module = table.python.partition(":")[0].partition(".")[0]
                yield f"{section}.{name}.python", module


def _module(folder: Path, name: str) -> Path | None:
    """The module of this name in the folder; a folder without `__init__.py` is none."""
    for path in (folder / name / "__init__.py", folder / f"{name}.py"):
        if path.is_file():
            return path
    return None


def _installed(name: str, folder: Path) -> bool:
    if name in sys.stdlib_module_names:
        return True
    places = [place for place in sys.path if Path(place or ".").resolve() != folder.resolve()]
    spec = PathFinder.find_spec(name, places)
    return spec is not None and spec.origin is not None
