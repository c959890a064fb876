"""`fleet route`: a dry run of the decision. Needs no broker and keeps nothing."""

from datetime import UTC, datetime
from typing import Any

import click

from fleet.cli.base import Command, wants_json
from fleet.cli.event_input import read_event
from fleet.cli.output import print_json, print_line
from fleet.config.settings import load
from routing import Event, decide, explain
from routing.chains import Stage


@click.command(cls=Command)
@click.argument("event", metavar="TEXT|EVENT.json|-")
@click.option("--to", multiple=True, metavar="TARGET", help="As in `fleet send`.")
def route(event: str, to: tuple[str, ...]) -> None:
    """Say which agents an event would reach, and why."""
    file = event if event == "-" or event.endswith(".json") else None
    raw = read_event(None if file else event, file, {"to": list(to) or None})
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    settings = load()
    rules = settings.rules()
    plan = decide(Event.parse(raw, new_id="dry-run", now=now, lanes=rules.lanes), rules)
    why = explain(plan, rules)
    stages = settings.chain(plan.chain).stages if plan.chain else ()
    if wants_json():
        rows = [{"agent": agent, "because": reasons} for agent, reasons in why.items()]
        found = {"agents": list(plan.agents), "chain": plan.chain, "reason": plan.reason}
        print_json({**found, "why": rows, "stages": [_brief(stage) for stage in stages]})
    elif stages:
        print_line(f"chain:{plan.chain}  ({plan.reason})")
        for number, stage in enumerate(stages, 1):
            print_line(f"  {number} {stage.name}{_votes(stage)}")
    else:
        width = max(len(agent) for agent in why)
        for agent, reasons in why.items():
            print_line(f"{agent:{width}}  {', '.join(reasons)}")


def _brief(stage: Stage) -> dict[str, Any]:
    members = [] if stage.person else list(stage.members)
    return {"name": stage.name, "agents": members, "quorum": stage.quorum}


def _votes(stage: Stage) -> str:
    if stage.person or len(stage.members) == 1:
        return ""
    return f"  ({', '.join(stage.members)}; {stage.quorum} of {len(stage.members)} must approve)"
