"""Celery's own commands, run by a supervisor: each stops when its supervisor does."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from fleet.system.lifeline import watch_lifeline

#: Command -> where it is.
_COMMANDS = {
    "worker": "celery.bin.worker:worker",
    "beat": "celery.bin.beat:beat",
    "flower": "flower.command:flower",
}


def main() -> None:
    """`celery -A fleet` with the arguments of this process."""
    watch_lifeline()
    from fleet.celery import app

    run_celery(app, sys.argv[sys.argv.index("fleet") + 1 :])


def run_celery(app: Any, arguments: Sequence[str]) -> NoReturn:
    """Run one Celery command, its name first, and exit with its code.

    Bypasses `celery.bin.celery`, which imports the commands of every installed package, and which
    takes options from the environment.
    """
    from celery.bin.base import CeleryCommand, CLIContext

    name, *options = arguments
    module, _, attribute = _COMMANDS[name].partition(":")
    if name != "worker":
        app.conf.imports = ()  # beat sends tasks by name, Flower shows names
    celery = CeleryCommand("celery")
    parent = celery.context_class(
        celery,
        info_name="celery",
        obj=CLIContext(app=app, no_color=False, workdir=None, quiet=False),
    )
    getattr(import_module(module), attribute)(options, prog_name=name, parent=parent)
    sys.exit(0)


if __name__ == "__main__":
    main()
