"""`fleet route`: a dry run of the decision. Needs no broker and keeps nothing."""

from datetime import UTC, datetime

import click

from fleet.cli.base import Command, wants_json
from fleet.cli.incoming import read_event
from fleet.cli.output import print_json
from fleet.settings import load
from routing import Event, decide


@click.command(cls=Command)
@click.argument("event", metavar="TEXT|EVENT.json|-")
@click.option("--to", multiple=True, metavar="TARGET", help="As in `fleet send`.")
def route(event: str, to: tuple[str, ...]) -> None:
    """Say which agents an event would reach, and why."""
    file = event if event == "-" or event.endswith(".json") else None
    raw = read_event(None if file else event, file, {"to": list(to) or None})
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    plan = decide(Event.parse(raw, new_id="dry-run", now=now), load().rules())
    if wants_json():
        print_json({"agents": list(plan.agents), "chain": plan.chain, "reason": plan.reason})
    else:
        reached = f"chain:{plan.chain}" if plan.chain else ", ".join(plan.agents)
        print(f"{reached}  ({plan.reason})")
