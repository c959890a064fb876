"""`fleet alerts`: what needs an operator, who knows of it, and what is over."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from fleet import runtime
from fleet.cli.base import Group, wants_json
from fleet.cli.decide import checked_name
from fleet.cli.output import duration, note, print_json, print_line, print_table
from fleet.config.settings import load
from fleet.errors import BrokerUnavailable
from fleet.formats.duration import seconds
from fleet.ops.alerts import listing, silences
from fleet.ops.alerts.silences import AlertTarget

_BY = click.option("--by", metavar="WHO", help="Who says so; else the user of this machine.")
_COMMENT = click.option("--comment", default="", metavar="TEXT", help="Why; others see it.")


@click.group(cls=Group, invoke_without_command=True, subcommand_metavar="[COMMAND ...]")
@click.option("--all", "past", is_flag=True, help="Those that are over, too.")
@click.pass_context
def alerts(ctx: click.Context, past: bool) -> None:
    """Show what needs an operator; silence and acknowledge alerts."""
    if ctx.invoked_subcommand is not None:
        if past:
            raise click.UsageError("--all is for the list alone.")
        return
    document = _read().to_wire(lambda _: True, past=past)
    if wants_json():
        print_json(document)
    else:
        _print(document)


@alerts.command()
@click.argument("which", metavar="NAME|ID")
@click.option("--for", "span", required=True, metavar="TIME", help="Such as 30m, 2h or 1d.")
@_BY
@_COMMENT
def silence(which: str, span: str, by: str | None, comment: str) -> None:
    """Send an alert, or all alerts of a name, to nobody for a while; it stays in the list."""
    who, for_s = checked_name(by), _seconds(span)
    target = _mark(
        which,
        lambda found: silences.silence(
            runtime.current().store, found, for_s=for_s, by=who, comment=_checked(comment)
        ),
    )
    _report(target, "silenced", f"silenced for {span} by {who}")


@alerts.command()
@click.argument("which", metavar="NAME|ID")
def unsilence(which: str) -> None:
    """End a silence: what is still open is sent then."""
    target = _mark(which, lambda found: silences.unsilence(runtime.current().store, found))
    _report(target, "unsilenced", "not silenced any more")


@alerts.command()
@click.argument("which", metavar="ID")
@_BY
@_COMMENT
def ack(which: str, by: str | None, comment: str) -> None:
    """Say that you know of an open alert: it is not sent again while it grows."""
    who = checked_name(by)
    target = _mark(
        which,
        lambda found: silences.acknowledge(
            runtime.current().store, found, by=who, comment=_checked(comment)
        ),
    )
    _report(target, "acknowledged", f"acknowledged by {who}")


def _read() -> listing.Alerts:
    settings = load()
    try:
        return listing.read(runtime.current().store, settings)
    except BrokerUnavailable as error:
        # This machine's own alerts say most about that.
        note(f"fleet: {error} Only the alerts of this machine are shown.")
        return listing.Alerts({}, [], {}, listing.of_machine(settings.data_dir))


def _mark(which: str, mark: Callable[[AlertTarget], None]) -> AlertTarget:
    target = silences.resolve(which, listing.read(runtime.current().store, load()).targets())
    mark(target)
    return target


def _report(target: AlertTarget, state: str, sentence: str) -> None:
    if wants_json():
        print_json({"id": target.id or None, "name": target.name, "state": state})
    else:
        print_line(f"{target.id or 'every'} {target.name}: {sentence}")


def _print(document: dict[str, Any]) -> None:
    if document["open"]:
        print_table(
            ["id", "alert", "for", "of", "why", "known to"],
            [
                (
                    one["id"],
                    one["name"],
                    _age(one["since"]),
                    one["agent"] or one["host"],
                    one["reason"],
                    _known_to(one),
                )
                for one in document["open"]
            ],
        )
    else:
        print_line("no alert is open")
    kinds = [one for one in document["silences"] if one["id"] is None]
    for one in kinds:
        print_line(f"every {one['name']} is {_silenced(one)}")
    if document.get("past"):
        print_line("\nearlier:")
        print_table(
            ["id", "alert", "what", "when", "of", "why"],
            [
                (
                    one["id"],
                    one["name"],
                    one["state"],
                    f"{_age(one['ended_at'] or one['since'])} ago",
                    one["agent"] or one["host"],
                    one["reason"],
                )
                for one in document["past"]
            ],
        )


def _known_to(one: dict[str, Any]) -> str | None:
    parts = []
    if ack := one["acknowledged"]:
        parts.append(f"acknowledged by {ack['by']}{_why(ack)}")
    if one["silenced"]:
        parts.append(_silenced(one["silenced"]))
    return "; ".join(parts) or None


def _silenced(one: dict[str, Any]) -> str:
    return f"silenced until {one['until'][:16].replace('T', ' ')} UTC by {one['by']}{_why(one)}"


def _why(one: dict[str, Any]) -> str:
    return f" ({one['comment']})" if one["comment"] else ""


def _age(time: str) -> str:
    then = datetime.fromisoformat(time)
    return duration(max(0.0, (datetime.now(UTC) - then).total_seconds()))


def _seconds(span: str) -> float:
    try:
        for_s = seconds(span)
    except ValueError as error:
        raise click.UsageError(f"--for {error}.") from None
    if not 1 <= for_s <= silences.SILENCE_S_MAX:
        raise click.UsageError("--for must be from 1s to 30d.")
    return for_s


def _checked(comment: str) -> str:
    if not silences.is_comment(comment):
        raise click.UsageError(
            f"--comment must be one printable line of at most {silences.COMMENT_CHARS_MAX} "
            "characters."
        )
    return comment.strip()
