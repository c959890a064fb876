"""`fleet route`: a dry run of the decision. Needs no broker and keeps nothing."""

from typing import Any

import click

from fleet.cli.backend import backend
from fleet.cli.base import Command, wants_json
from fleet.cli.event_input import read_event
from fleet.cli.output import print_json, print_line


@click.command(cls=Command)
@click.argument("event", metavar="TEXT|EVENT.json|-")
@click.option("--to", multiple=True, metavar="TARGET", help="As in `fleet send`.")
def route(event: str, to: tuple[str, ...]) -> None:
    """Say which agents an event would reach, and why."""
    file = event if event == "-" or event.endswith(".json") else None
    plan = backend().route(read_event(None if file else event, file, {"to": list(to) or None}))
    if wants_json():
        print_json(plan)
    elif plan["stages"]:
        print_line(f"chain:{plan['chain']}  ({plan['reason']})")
        for number, stage in enumerate(plan["stages"], 1):
            print_line(f"  {number} {stage['name']}{_votes(stage)}")
    else:
        width = max(len(agent) for agent in plan["agents"])
        for row in plan["why"]:
            print_line(f"{row['agent']:{width}}  {', '.join(row['because'])}")


def _votes(stage: dict[str, Any]) -> str:
    """The members of a stage that votes; a person's has none."""
    members = stage["agents"]
    if len(members) < 2:
        return ""
    return f"  ({', '.join(members)}; {stage['quorum']} of {len(members)} must approve)"
