"""`fleet token`: who may use the HTTP API, and for what."""

import click

from fleet.cli.backend import backend
from fleet.cli.base import Group, wants_json
from fleet.cli.output import ago, note, print_json, print_line, print_table
from fleet.ledger.views import rfc3339
from routing.event import EVENT_BYTES_MAX


@click.group(cls=Group)
def token() -> None:
    """Create, list and revoke API tokens."""


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    metavar="SCOPE",
    multiple=True,
    required=True,
    help="send:AGENT, read:AGENT, tools:SET ('*' is every), operate or admin; may be repeated.",
)
@click.option("--rate", metavar="N", type=click.FloatRange(0, 1e6, min_open=True), help="A second.")
@click.option(
    "--max-body",
    metavar="BYTES",
    type=click.IntRange(1, EVENT_BYTES_MAX),
    help="Largest request.",
)
def create(name: str, scopes: tuple[str, ...], rate: float | None, max_body: int | None) -> None:
    """Create a token and print it: this once, it cannot be shown again.

    From the first token on every request needs one, on loopback too. --rate is how many requests
    and events a second it may send, --max-body how large one request may be.
    """
    made, text, first = backend().create_token(name, scopes, rate, max_body)
    if wants_json():
        print_json({**made, "token": text})
    else:
        print_line(text)
        granted = ", ".join(made["scopes"])
        note(f"fleet: token {made['id']} ({name}): {granted}; it is not shown again")
    if first:
        note("fleet: from now on every request to the API needs a token")


@token.command("list")
def list_() -> None:
    """List the tokens, newest first; never their secrets."""
    stored = backend().tokens()
    if wants_json():
        print_json(stored)
        return
    print_table(
        ["id", "name", "scopes", "rate/s", "max body", "created", "revoked"],
        [
            (
                one["id"],
                one["name"],
                ", ".join(one["scopes"]),
                one["rate_per_s"],
                one["body_bytes"],
                _when(one["created_ms"]),
                _when(one["revoked_ms"]),
            )
            for one in stored
        ],
    )


@token.command()
@click.argument("which", metavar="ID|NAME")
def revoke(which: str) -> None:
    """Revoke a token, at once: also for who follows the bus with it."""
    revoked = backend().revoke_token(which)
    if wants_json():
        print_json({"revoked": [token_id for token_id, _ in revoked]})
    elif revoked:
        print_line("\n".join(f"{token_id} ({name}) is revoked" for token_id, name in revoked))
    else:
        print_line(f"{which} was revoked before")


def _when(millis: int | None) -> str | None:
    return None if millis is None else ago(rfc3339(millis))
