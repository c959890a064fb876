"""`fleet dlq`: the dead letters, dispatches that were given up."""

from typing import Any

import click

from fleet.cli.backend import backend
from fleet.cli.base import Group, wants_json
from fleet.cli.output import ago, note, print_json, print_line, print_table, short_id
from fleet.cli.queues import find_one, print_record
from fleet.errors import NotPossible, Unknown
from fleet.formats.since import parse_since
from fleet.ledger import State, views
from fleet.ledger.dead_letters import Replayed


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
        ["dispatch", "agent", "attempts", "accepted", "ended", "stage", "reason"],
        [_row(row) for row in page.dispatches],
    )


def _row(row: dict[str, Any]) -> list[object]:
    return [
        short_id(row["dispatch_id"]),
        row["agent"],
        row["attempt"],
        *(ago(row[name]) for name in ("accepted_at", "ended_at")),
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
        raise NotPossible(f"{record['dispatch_id']} is {record['state']}, not dead.")
    if wants_json():
        print_json(record)
    else:
        print_record(record)


@dlq.command()
@click.argument("dispatch_id", metavar="ID", required=False)
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
@click.option("--agent", "-a", metavar="NAME", help="Those of this agent.")
@click.option("--since", metavar="WHEN", help="Those given up since: 90s, 15m, 2h, 3d, or a time.")
@click.option("--reason", default="", metavar="TEXT", help="Those whose stage or reason has this.")
@click.option(
    "--limit", "-l", type=click.IntRange(1), metavar="N", help="Most of them, oldest first."
)
def replay(
    dispatch_id: str | None,
    everything: bool,
    agent: str | None,
    since: str | None,
    reason: str,
    limit: int | None,
) -> int:
    """Queue dead letters again, each as a new generation in its old place.

    Of several filters each must hold.
    """
    filtered = bool(agent or since or reason or limit)
    if (dispatch_id is not None) + (everything or filtered) != 1:
        raise click.UsageError("Give one dispatch's id, or --all, or filters such as --agent.")
    if dispatch_id is not None:
        done = _replay_one(backend().whole_id(dispatch_id))
    else:
        done = _replay_all(agent, since, reason, limit)
    if wants_json():
        print_json(
            [{"dispatch_id": one, "state": State.QUEUED} for one in done.queued]
            + [{"dispatch_id": one, "error": sentence} for one, sentence in done.refused]
        )
    elif done.queued or not done.refused:
        print_line(f"{len(done.queued)} queued again")
    for _, sentence in done.refused:
        note(f"fleet: {sentence}")
    return int(bool(done.refused))


def _replay_one(dispatch_id: str) -> Replayed:
    try:
        backend().replay(dispatch_id)
    except (Unknown, NotPossible) as error:
        return Replayed([], [(dispatch_id, str(error))], more=False)
    return Replayed([dispatch_id], [], more=False)


def _replay_all(agent: str | None, since: str | None, reason: str, limit: int | None) -> Replayed:
    """Replay the dead letters that there are now."""
    try:
        parse_since(since or "0s", 0.0)
    except ValueError as error:
        raise click.UsageError(f"--since: {error}") from error
    return backend().replay_dead_letters(agent, since, reason, limit)


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
