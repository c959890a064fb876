"""`fleet recover`: an operator's word after the store went back."""

import click

from fleet import runtime
from fleet.cli.base import Command, wants_json
from fleet.cli.output import print_json, print_line
from fleet.ledger import store_life


@click.command(cls=Command)
def recover() -> None:
    """Let a fleet go on whose store was emptied or restored.

    What the store has now counts from then on: what it misses is lost, and what ended since a
    backup runs again. Cancel that first, by `fleet queue`.
    """
    reason = store_life.recover(runtime.current().store)
    if wants_json():
        print_json({"recovered": bool(reason), "reason": reason})
    elif reason:
        print_line(f"The fleet goes on. It stood still because of its store: {reason}.")
    else:
        print_line("The fleet does not stand still: nothing to recover.")
