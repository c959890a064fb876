"""Celery's own commands, run by a supervisor: each stops when its supervisor does."""

import select
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from fleet.config.settings import load
from fleet.errors import BrokerUnavailable
from fleet.store.address import broker_url
from fleet.store.connection import retry_while_away
from fleet.system.lifeline import watch_lifeline

#: How long a process that starts in an outage waits for the embedded broker.
OUTAGE_S = 60.0
#: Command -> where it is.
_COMMANDS = {
    "worker": "celery.bin.worker:worker",
    "beat": "celery.bin.beat:beat",
    "flower": "flower.command:flower",
}


def main() -> None:
    """`celery -A fleet` with the arguments of this process."""
    watch_lifeline()
    await_broker()
    from fleet.celery import app

    run_celery(app, sys.argv[sys.argv.index("fleet") + 1 :])


def await_broker(lifeline: int | None = None) -> None:
    """Return when an embedded broker runs, or after OUTAGE_S.

    Without it a supervised process ends, and its supervisor starts it later each time. `lifeline`
    is for a process without a thread that watches it.
    """
    settings = load()

    def query() -> None:
        if lifeline is not None and select.select([lifeline], [], [], 0)[0]:
            sys.exit(0)
        broker_url(settings)

    with suppress(BrokerUnavailable):  # `fleet.celery` says so
        retry_while_away(query, OUTAGE_S)


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
        # Without the banner, which would be most of a log.
        obj=CLIContext(app=app, no_color=False, workdir=None, quiet=True),
    )
    getattr(import_module(module), attribute)(options, prog_name=name, parent=parent)
    sys.exit(0)


if __name__ == "__main__":
    main()
