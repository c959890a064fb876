"""`fleet bench`: the project's benchmarks, each one module `fleet.bench.<name>` with a `run()`."""

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import click

from fleet.cli.base import Command, wants_json
from fleet.cli.output import print_json, print_line

_FREE = {"ignore_unknown_options": True, "allow_extra_args": True}


@click.command(cls=Command, context_settings=_FREE, options_metavar="[--OPTION VALUE]...")
@click.argument("name", required=False)
@click.pass_context
def bench(ctx: click.Context, name: str | None) -> int:
    """Run a benchmark, or list them.

    One JSON object goes to standard output, progress to standard error. Each benchmark has options
    of its own, such as --seed; an unknown option is answered with a list of them. The exit code is
    1 when a run has broken a promise.
    """
    names = _names()
    if name is None:
        if wants_json():
            print_json(names)
        else:
            print_line("\n".join(names) or "no benchmarks are installed")
        return 0
    if name not in names:
        raise click.UsageError(f"{name!r} is not a benchmark; `fleet bench` lists them.")
    options = _options(ctx.args)
    report = import_module(f"fleet.bench.{name}").run(**options)
    print_json(report)
    return int(report.get("broken", 0) > 0)


def _names() -> list[str]:
    """The modules of `fleet.bench` that can be run: those that do not begin with an underscore."""
    package = find_spec("fleet.bench")
    if package is None or package.submodule_search_locations is None:
        return []
    found = pkgutil.iter_modules(package.submodule_search_locations)
    return sorted(module.name for module in found if not module.name.startswith("_"))


def _options(words: Sequence[str]) -> dict[str, str]:
    """`--agents 5 --seed=1` as a dictionary."""
    found = {}
    left = list(words)
    while left:
        name, mark, value = left.pop(0).partition("=")
        if not name.startswith("--") or (not mark and not left):
            raise click.UsageError(f"{name!r} is not an option with a value, such as --seed 1.")
        found[name.removeprefix("--").replace("-", "_")] = value if mark else left.pop(0)
    return found
