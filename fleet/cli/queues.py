"""`fleet queue`: the ledger in the terminal."""

from collections import Counter
from textwrap import indent
from typing import Any

import click

from fleet.cli.backend import backend
from fleet.cli.base import Group, wants_json
from fleet.cli.failures import print_failures
from fleet.cli.ids import find_record
from fleet.cli.output import (
    ago,
    cell,
    duration,
    print_json,
    print_line,
    print_pairs,
    print_table,
    short_id,
)
from fleet.cli.resend import resend, send_again
from fleet.formats.redaction import HIDDEN
from fleet.ledger import State, ids, views

_IN_STATS = ("queued", "active", "retrying", "completed", "dead")


@click.group(cls=Group)
def queue() -> None:
    """Look at dispatches; cancel, retry, resend, move and drain them."""


queue.add_command(resend)


@queue.command()
@click.option("--agent", "-a", metavar="NAME", help="Only this agent's.")
def stats(agent: str | None) -> None:
    """Count dispatches per agent and state, with the age of the oldest that waits."""
    found = backend().counts(agent)
    rows = [{"agent": name, **row} for name, row in found.items()]
    if wants_json():
        print_json(rows)
        return
    others = sorted({state for row in found.values() for state in row["states"]} - {*_IN_STATS})
    columns = [*_IN_STATS, *others]
    unverified = any(row["unverified"] for row in found.values())
    print_table(
        ["agent", *columns, *(["unverified"] if unverified else []), "oldest"],
        [
            (
                row["agent"],
                *(row["states"].get(state, 0) for state in columns),
                *([row["unverified"]] if unverified else []),
                duration(row["oldest_s"]),
            )
            for row in rows
        ],
    )


@queue.command("list")
@click.option("--agent", "-a", metavar="NAME", help="Only this agent's.")
@click.option(
    "--state",
    "-s",
    type=click.Choice([state.value for state in State]),
    multiple=True,
    help="Only in this state; may be repeated.",
)
@click.option(
    "--limit",
    "-l",
    type=click.IntRange(1, views.LIST_MAX),
    default=20,
    metavar="N",
    help="Most rows.",
)
def list_(agent: str | None, state: tuple[str, ...], limit: int) -> None:
    """List dispatches over all agents, newest first."""
    page = backend().dispatches(agent, state, limit)
    if wants_json():
        print_json({"dispatches": page.dispatches, "cursor": page.cursor})
    else:
        print_dispatches(page.dispatches)


def print_dispatches(rows: list[dict[str, Any]]) -> None:
    """A table of dispatches."""
    print_table(
        ["dispatch", "agent", "state", "attempt", "accepted", "took", "why"],
        [
            (
                short_id(row["dispatch_id"]),
                row["agent"],
                row["state"],
                row["attempt"],
                ago(row["accepted_at"]),
                duration(row.get("elapsed_s")),
                _why(row),
            )
            for row in rows
        ],
    )


def _why(row: dict[str, Any]) -> str | None:
    """Why it is as it is: what failed, whom it waits for, or how it was decided."""
    if row["state"] == State.PARKED:
        return str(row["waiting_for"])
    decided = [row[name] for name in ("verdict", "decided_by") if name in row]
    failed = [row[name] for name in ("stage", "error") if name in row]
    return "; ".join(filter(None, (" by ".join(decided), ": ".join(failed)))) or None


@queue.command()
@click.argument("id_", metavar="ID")
@click.option("--source", help="Of an event's id.  [default: fleet, else any]")
@click.option("--sent-by", metavar="SENDER", help="Of an event that several have sent.")
@click.option("--show-content", is_flag=True, help="Show the event, the answer and step results.")
def inspect(id_: str, source: str | None, sent_by: str | None, show_content: bool) -> None:
    """Show one dispatch with its steps and why it waits, or one event with its dispatches.

    No content unless asked.
    """
    record, event = find_record(id_, source, sent_by, content=show_content)
    if wants_json():
        print_json(record or event)
    elif record:
        print_record(record)
    elif event:
        print_event(event)


def print_event(event: dict[str, Any]) -> None:
    """Every field, then the members with their outcomes, then their answers where there are any."""
    members = event["members"]
    print_pairs((name, value) for name, value in event.items() if name != "members")
    print_table(
        ["agent", "state", "dispatch", "why"],
        [
            (
                one["agent"],
                one["state"],
                short_id(one["dispatch_id"]),
                ": ".join(one[name] for name in ("stage", "error") if name in one) or None,
            )
            for one in members
        ],
    )
    for one in members:
        if one.get("answer", HIDDEN) != HIDDEN:
            print_line(f"{one['agent']}\n{indent(cell(one['answer']), '  ')}")


def find_one(dispatch_id: str, *, content: bool) -> dict[str, Any]:
    """The record of a dispatch, by its id or the beginning of it. Raises Unknown."""
    record = backend().dispatch(dispatch_id, content=content)
    if record is None:
        raise ids.unknown(dispatch_id)
    return record


def print_record(record: dict[str, Any]) -> None:
    """Every field, then what was before, the steps and the failures, then the answer."""
    tables = ("earlier", "steps")
    below = (*tables, "failures", "answer")
    print_pairs((name, value) for name, value in record.items() if name not in below)
    for rows in filter(None, map(record.get, tables)):
        columns = list(dict.fromkeys(name for row in rows for name in row))
        print_table(columns, [[row.get(name) for name in columns] for row in rows])
    if failures := record.get("failures"):
        print_failures(failures)
    if "answer" in record:
        print_line(f"answer\n{indent(cell(record['answer']), '  ')}")


@queue.command()
@click.argument("dispatch_id", metavar="ID")
@click.option("--reason", default="cancelled by a person", show_default=True, help="Why.")
@click.option("--now", is_flag=True, help="End a running turn at once, in the middle of a step.")
def cancel(dispatch_id: str, reason: str, now: bool) -> None:
    """Cancel a dispatch: at once when it waits, at its next step when it runs."""
    dispatch_id = backend().whole_id(dispatch_id)
    state = backend().cancel(dispatch_id, reason, now=now)
    if wants_json():
        print_json({"dispatch_id": dispatch_id, "state": state})
    elif state == State.CANCELLED:
        print_line(f"{dispatch_id}: cancelled")
    else:
        print_line(f"{dispatch_id}: {state}; it stops at its next step")


@queue.command()
@click.argument("dispatch_id", metavar="ID")
@click.option("--text", metavar="TEXT", help="Resend it with this text instead.")
@click.option("--edit", is_flag=True, help="Resend it instead, with its text edited in $EDITOR.")
def retry(dispatch_id: str, text: str | None, edit: bool) -> int:
    """Try a dispatch again, in its old place: a retrying one now, a dead one anew.

    With --text or --edit it stays as it is, and a new event is sent: see `fleet queue resend`.
    """
    if edit or text is not None:
        return send_again(dispatch_id, {"text": text}, edit=edit)
    dispatch_id = backend().whole_id(dispatch_id)
    state = backend().replay(dispatch_id)
    if wants_json():
        print_json({"dispatch_id": dispatch_id, "state": state})
        return 0
    record = backend().dispatch(dispatch_id, content=False) or {}
    why = record.get("waiting_for")
    print_line(f"{dispatch_id}: {record.get('state', state)}{f' ({why})' if why else ''}")
    return 0


@queue.command()
@click.argument("agent")
@click.option("--confirm", is_flag=True, help="Needed: what is cancelled does not come back.")
@click.option("--reason", default="drained by a person", show_default=True, help="Why.")
def drain(agent: str, confirm: bool, reason: str) -> None:
    """Cancel everything that waits for an agent; a running turn goes on."""
    if not confirm:
        raise click.UsageError(f"This cancels everything that waits for {agent}: add --confirm.")
    cancelled = backend().cancel_waiting(agent, reason)
    if wants_json():
        print_json({"agent": agent, "cancelled": cancelled})
    else:
        print_line(f"{agent}: {cancelled} cancelled")


@queue.command()
@click.argument("old")
@click.argument("new")
def move(old: str, new: str) -> None:
    """Give what waits for the agent OLD to the agent NEW, each in its old place.

    For an agent that was renamed or removed: its dead letters move too. A running turn stays.
    """
    moved = Counter(backend().move(old, new))
    dead = moved.pop(State.DEAD, 0)
    if wants_json():
        print_json({"from": old, "to": new, "moved": moved.total(), "dead_letters": dead})
        return
    letters = f", and {dead} dead letters: `fleet dlq retry` runs them" if dead else ""
    print_line(f"{new}: {moved.total()} moved from {old}{letters}")
