"""`fleet context`: the fleets elsewhere that commands work on."""

import ipaddress
import os
import sys
from urllib.parse import urlsplit

import click

from fleet.cli import contexts
from fleet.cli.base import Group, wants_json
from fleet.cli.output import note, print_json, print_line, print_table


@click.group(cls=Group)
def context() -> None:
    """Keep fleets elsewhere by name; choose the one to work on."""


@context.command()
@click.argument("name")
@click.option("--url", required=True, metavar="URL", help="Of its HTTP API.")
@click.option("--token", metavar="TOKEN", help="Otherwise FLEET_TOKEN, or asked for at a terminal.")
def add(name: str, url: str, token: str | None) -> None:
    """Keep a fleet's URL and token under a name; one of this name is replaced.

    The token is kept in the system's keyring where the package keyring is installed and works,
    otherwise in a file that only you may read.
    """
    text = token or os.environ.get("FLEET_TOKEN") or _asked()
    made = contexts.add(name, url, text)
    if wants_json():
        print_json({"name": name, "url": made.url, "token": made.place})
        return
    where = {"none": "without a token", "keyring": "its token in the keyring"}
    file = f"its token in {contexts.path()}"
    print_line(f"{name}: {made.url}, {where.get(made.place, file)}")
    place = urlsplit(made.url)
    if text and place.scheme == "http" and not _is_here(str(place.hostname)):
        note(f"fleet: whoever listens on the way to {place.hostname} can read the token: use https")


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _asked() -> str | None:
    if not sys.stdin.isatty():
        return None
    text = click.prompt("Token (empty for none)", default="", hide_input=True, show_default=False)
    return str(text).strip() or None


@context.command()
@click.argument("name", required=False)
@click.option("--none", "nowhere", is_flag=True, help="Work on this machine again.")
def use(name: str | None, nowhere: bool) -> None:
    """Let commands work on the fleet of a context, until another choice."""
    if nowhere == (name is not None):
        raise click.UsageError("Give a context's name, or --none.")
    contexts.use(name)
    if wants_json():
        print_json({"current": name})
    else:
        print_line(f"commands work on {name or 'the fleet of this machine'} now")


@context.command("list")
def list_() -> None:
    """List the contexts; never their tokens."""
    found = contexts.read()
    rows = [
        {"name": name, "url": one.url, "token": one.place, "current": name == found.current}
        for name, one in sorted(found.table.items())
    ]
    if wants_json():
        print_json(rows)
        return
    print_table(
        ["", "context", "url", "token"],
        [("*" if row["current"] else "", row["name"], row["url"], row["token"]) for row in rows],
    )


@context.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a context and its token; the token stays valid until it is revoked."""
    contexts.remove(name)
    if wants_json():
        print_json({"removed": name})
    else:
        print_line(f"{name} is removed")
