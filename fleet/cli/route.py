"""`fleet route`: a dry run of the decision. Needs no broker and keeps nothing."""

from datetime import UTC, datetime

import click

from fleet.cli.base import Command, wants_json
from fleet.cli.incoming import read_event
from fleet.cli.output import print_json
from fleet.settings import load
from routing import Event, decide, explain


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
    plan = decide(Event.parse(raw, new_id="dry-run", now=now), rules)
    why = explain(plan, rules)
    stages = list(settings.chains[plan.chain].stages) if plan.chain else None
    if wants_json():
        rows = [{"agent": agent, "because": reasons} for agent, reasons in why.items()]
        found = {"agents": list(plan.agents), "chain": plan.chain, "stages": stages}
        print_json({**found, "reason": plan.reason, "why": rows})
    elif stages is not None:
        print(f"chain:{plan.chain}  ({plan.reason})")
        for number, stage in enumerate(stages, 1):
            print(f"  {number} {stage}")
    else:
        width = max(len(agent) for agent in why)
        for agent, reasons in why.items():
            print(f"{agent:{width}}  {', '.join(reasons)}")
