"""`fleet dlq`: the dead letters, dispatches that were given up."""

from typing import Any

import click

from fleet.cli.backend import backend
from fleet.cli.base import Group, wants_json
from fleet.cli.output import note, print_json, print_line, print_table
from fleet.cli.queues import find_one, print_record
from fleet.errors import NotPossible, Unknown
from fleet.ledger import State, views


@click.group(cls=Group)
def dlq() -> None:
    """Look at dead letters; replay and purge them."""


@dlq.command("list")
@click.option("--agent", "-a", metavar="NAME", help="Only this agent's.")
@click.option(
    "--limit",
    "-l",
    type=click.IntRange(1, views.LIST_MAX),
    default=20,
    metavar="N",
    help="Most rows.",
)
def list_(agent: str | None, limit: int) -> None:
    """List dead letters, newest first, with why, attempts and first and last time."""
    page = backend().dispatches(agent, [State.DEAD], limit)
    if wants_json():
        print_json({"dispatches": page.dispatches, "cursor": page.cursor})
        return
    print_table(
        ["dispatch", "agent", "attempts", "accepted (UTC)", "ended (UTC)", "stage", "reason"],
        [_row(row) for row in page.dispatches],
    )


def _row(row: dict[str, Any]) -> list[object]:
    times = [row[name][:19].replace("T", " ") for name in ("accepted_at", "ended_at")]
    return [
        row["dispatch_id"],
        row["agent"],
        row["attempt"],
        *times,
        row.get("stage"),
        row.get("error"),
    ]


@dlq.command()
@click.argument("dispatch_id", metavar="ID")
@click.option("--show-content", is_flag=True, help="Show the event and step results.")
def show(dispatch_id: str, show_content: bool) -> None:
    """Show one dead letter."""
    record = find_one(dispatch_id, content=show_content)
    if record["state"] != State.DEAD:
        raise NotPossible(f"{dispatch_id} is {record['state']}, not dead.")
    if wants_json():
        print_json(record)
    else:
        print_record(record)


@dlq.command()
@click.argument("dispatch_id", metavar="ID", required=False)
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
def replay(dispatch_id: str | None, everything: bool) -> int:
    """Queue dead letters again, each as a new generation in its old place."""
    if everything == (dispatch_id is not None):
        raise click.UsageError("Give one dispatch's id, or --all.")
    report = [_replay(one) for one in ([dispatch_id] if dispatch_id else _all_dead())]
    refused = [row["error"] for row in report if "error" in row]
    if wants_json():
        print_json(report)
    elif everything or not refused:
        print_line(f"{len(report) - len(refused)} queued again")
    for sentence in refused:
        note(f"fleet: {sentence}")
    return int(bool(refused))


def _replay(dispatch_id: str) -> dict[str, str]:
    """One that cannot be replayed does not stop the others."""
    try:
        state = backend().replay(dispatch_id)
    except (Unknown, NotPossible) as error:
        return {"dispatch_id": dispatch_id, "error": str(error)}
    return {"dispatch_id": dispatch_id, "state": state}


def _all_dead() -> list[str]:
    """Every dead letter there is now, oldest first: so they are taken up in order."""
    found: list[str] = []
    cursor = None
    while True:
        page = backend().dispatches(None, [State.DEAD], views.LIST_MAX, cursor)
        found += [row["dispatch_id"] for row in page.dispatches]
        cursor = page.cursor
        if cursor is None:
            return found[::-1]


@dlq.command()
@click.option("--confirm", is_flag=True, help="Needed: what is purged does not come back.")
def purge(confirm: bool) -> None:
    """Forget every dead letter, but those of which a receiver is still to be told."""
    if not confirm:
        raise click.UsageError("This forgets every dead letter: add --confirm.")
    purged = backend().purge()
    if wants_json():
        print_json({"purged": purged})
    else:
        print_line(f"{purged} purged")
