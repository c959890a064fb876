"""`fleet alerts`: what needs an operator, who knows of it, and what is over."""

from datetime import UTC, datetime
from typing import Any

import click

from fleet.cli.backend import backend
from fleet.cli.base import Group, wants_json
from fleet.cli.decide import checked_name
from fleet.cli.output import duration, print_json, print_line, print_table
from fleet.formats.duration import seconds
from fleet.ops.alerts import silences

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
    document = backend().alerts(past=past)
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
    marked = backend().silence_alert(which, _seconds(span), checked_name(by), _checked(comment))
    _report(marked, f"silenced for {span} by {marked['by']}")


@alerts.command()
@click.argument("which", metavar="NAME|ID")
def unsilence(which: str) -> None:
    """End a silence: what is still open is sent then."""
    _report(backend().unsilence_alert(which), "not silenced any more")


@alerts.command()
@click.argument("which", metavar="ID")
@_BY
@_COMMENT
def ack(which: str, by: str | None, comment: str) -> None:
    """Say that you know of an open alert: it is not sent again while it grows."""
    marked = backend().acknowledge_alert(which, checked_name(by), _checked(comment))
    _report(marked, f"acknowledged by {marked['by']}")


def _report(marked: dict[str, Any], sentence: str) -> None:
    if wants_json():
        print_json(marked)
    else:
        print_line(f"{marked['id'] or 'every'} {marked['name']}: {sentence}")


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
