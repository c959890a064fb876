"""`fleet approve` and `fleet reject`: a person decides about a parked dispatch."""

import getpass
from typing import Literal

import click

from fleet.cli.backend import backend
from fleet.cli.base import Command, wants_json
from fleet.cli.output import print_json, print_line
from fleet.ledger import operations
from routing import Verdict


@click.command(cls=Command)
@click.argument("dispatch_id", metavar="ID")
@click.option("--reason", default="", metavar="R", help="What later stages are told.")
@click.option("--by", metavar="NAME", help="Who approves; else the user of this machine.")
def approve(dispatch_id: str, reason: str, by: str | None) -> None:
    """Approve a parked dispatch: its chain goes on."""
    _decide(dispatch_id, Verdict.APPROVE, reason, by)


@click.command(cls=Command)
@click.argument("dispatch_id", metavar="ID")
@click.option("--reason", required=True, metavar="R", help="Why; it is shown to everybody.")
@click.option("--by", metavar="NAME", help="Who rejects; else the user of this machine.")
def reject(dispatch_id: str, reason: str, by: str | None) -> None:
    """Reject a parked dispatch: its chain ends."""
    _decide(dispatch_id, Verdict.REJECT, reason, by)


def _decide(
    dispatch_id: str,
    verdict: Literal[Verdict.APPROVE, Verdict.REJECT],
    reason: str,
    by: str | None,
) -> None:
    dispatch_id = backend().whole_id(dispatch_id)
    state, name = backend().decide(dispatch_id, verdict, checked_name(by), reason.strip())
    if wants_json():
        print_json({"dispatch_id": dispatch_id, "state": state, "verdict": verdict, "by": name})
    else:
        print_line(f"{dispatch_id}: {'approved' if verdict is Verdict.APPROVE else 'rejected'}")


def checked_name(by: str | None) -> str:
    """The person named by `--by`, else the user of this machine."""
    if by is None:
        return _user()
    name = by.strip()
    if not operations.is_name(name):
        raise click.UsageError(
            f"--by must be one printable line of 1 to {operations.BY_CHARS_MAX} characters."
        )
    return name


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        # A container's user may have no name.
        raise click.UsageError("This user has no name here: say who it is with --by.") from None
