"""`fleet queue resend`: a new event from an old one, perhaps with another text."""

from typing import Any

import click

from fleet import runtime
from fleet.cli.base import Command, wants_json
from fleet.cli.ids import dispatch_of
from fleet.cli.output import note, print_json
from fleet.cli.send import show_accepted
from fleet.errors import FleetError
from fleet.formats import hop_count
from fleet.intake.resend import OldEvent, new_event, read_old


@click.command(cls=Command)
@click.argument("dispatch_id", metavar="ID")
@click.option("--text", metavar="TEXT", help="Its text instead of the old one.")
@click.option("--edit", is_flag=True, help="Open the old text in $EDITOR first.")
@click.option("--to", multiple=True, metavar="TARGET", help="For others; as in `fleet send`.")
@click.option("--session", metavar="S", help="In another session.")
@click.option("--idempotency-key", metavar="K", help="The same key twice is the same event.")
def resend(
    dispatch_id: str,
    text: str | None,
    edit: bool,
    to: tuple[str, ...],
    session: str | None,
    idempotency_key: str | None,
) -> None:
    """Send the event of a dispatch again, as a new one that names the old.

    For a dispatch in any state: it stays as it is. A stage of a chain begins its chain anew. The
    id of an event stands for its only dispatch.
    """
    changes = {"text": text, "to": list(to) or None, "session": session}
    send_again(dispatch_id, changes, edit=edit, new_id=idempotency_key)


def send_again(
    given: str, changes: dict[str, Any], *, edit: bool, new_id: str | None = None
) -> None:
    """Send the event of a dispatch again, with the `changes` that are not None."""
    if edit and changes.get("text") is not None:
        raise click.UsageError("Give --text or --edit.")
    dispatch_id = dispatch_of(given)
    old = read_old(runtime.current().store, dispatch_id)
    if edit:
        changes = {**changes, "text": _edited(old)}
    changed = {name: value for name, value in changes.items() if value is not None}
    raw = new_event(old, changed, hops=hop_count.of_next())
    accepted = runtime.current().intake.accept(raw, new_id=new_id, resent_from=dispatch_id)
    if wants_json():
        print_json({**accepted.to_wire(), "resent_from": dispatch_id})
        return
    show_accepted(accepted)
    if not old.state.terminal:
        note(
            f"fleet: {dispatch_id} is {old.state} and goes on as well; "
            f"`fleet queue cancel {dispatch_id}` ends it"
        )


def _edited(old: OldEvent) -> str:
    """The text as its editor left it. Raises FleetError where nothing was saved."""
    text = click.edit(old.event.text, require_save=True)
    if text is None:
        raise FleetError("Nothing was saved in the editor: nothing was sent.")
    # Editors end a file with a newline.
    return text if old.event.text.endswith("\n") else text.removesuffix("\n")
