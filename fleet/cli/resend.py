"""`fleet queue resend`: a new event from an old one, perhaps with another text."""

from typing import Any

import click

from fleet.cli.backend import backend
from fleet.cli.backend.protocol import Record
from fleet.cli.base import Command, wants_json
from fleet.cli.ids import dispatch_of
from fleet.cli.output import note
from fleet.cli.send import check_waiting, show_accepted, show_outcomes, waiting
from fleet.errors import FleetError, NotPossible
from fleet.formats import hop_count
from fleet.formats.redaction import HIDDEN
from fleet.ledger import State


@click.command(cls=Command)
@click.argument("dispatch_id", metavar="ID")
@click.option("--text", metavar="TEXT", help="Its text instead of the old one.")
@click.option("--edit", is_flag=True, help="Open the old text in $EDITOR first.")
@click.option("--to", multiple=True, metavar="TARGET", help="For others; as in `fleet send`.")
@click.option("--session", metavar="S", help="In another session.")
@click.option("--idempotency-key", metavar="K", help="The same key twice is the same event.")
@waiting
def resend(
    dispatch_id: str,
    text: str | None,
    edit: bool,
    to: tuple[str, ...],
    session: str | None,
    idempotency_key: str | None,
    wait: bool,
    timeout: float | None,
) -> int:
    """Send the event of a dispatch again, as a new one that names the old.

    For a dispatch in any state: it stays as it is. A stage of a chain begins its chain anew. The
    id of an event stands for its only dispatch.
    """
    check_waiting(wait, timeout)
    changes = {"text": text, "to": list(to) or None, "session": session}
    return send_again(
        dispatch_id, changes, edit=edit, new_id=idempotency_key, wait=wait, timeout_s=timeout
    )


def send_again(
    given: str,
    changes: dict[str, Any],
    *,
    edit: bool,
    new_id: str | None = None,
    wait: bool = False,
    timeout_s: float | None = None,
) -> int:
    """Send the event of a dispatch again, with the `changes` that are not None.

    Returns the exit code.
    """
    if edit and changes.get("text") is not None:
        raise click.UsageError("Give --text or --edit.")
    old = dispatch_of(given, content=edit)
    dispatch_id, state = old["dispatch_id"], State(old["state"])
    if edit:
        changes = {**changes, "text": _edited(old)}
    changed = {name: value for name, value in changes.items() if value is not None}
    # Read before the send, so every entry about the event comes after it.
    after = backend().newest() if wait else None
    accepted = backend().resend(dispatch_id, changed, hop_count.of_next(), new_id)
    also = {"resent_from": dispatch_id}
    if after is None:
        show_accepted(accepted, also)
    if not (state.terminal or wants_json()):
        note(
            f"fleet: {dispatch_id} is {state} and goes on as well; "
            f"`fleet queue cancel {dispatch_id}` ends it"
        )
    return 0 if after is None else show_outcomes(accepted, after, timeout_s, also)


def _edited(old: Record) -> str:
    """The text as its editor left it. Raises FleetError where nothing was saved."""
    if old["event"] == HIDDEN:
        raise NotPossible(f"The event of {old['dispatch_id']} is no longer kept.")
    before = str(old["event"]["data"]["text"])
    text = click.edit(before, require_save=True)
    if text is None:
        raise FleetError("Nothing was saved in the editor: nothing was sent.")
    # Editors end a file with a newline.
    return text if before.endswith("\n") else text.removesuffix("\n")
