"""The fleet that a command is for: one elsewhere, by its URL or a context, or that of this machine.

The first of these counts: `--url`, `--context`, `FLEET_URL` with `FLEET_TOKEN`, the context in use.
A `FLEET_URL` that is empty stands for this machine.
"""

import os
from dataclasses import dataclass

import click

from fleet.cli import contexts
from fleet.config.foreign_environment import elsewhere

#: Names of the options, which are keys of click's `meta`, too.
URL, TOKEN, CONTEXT = "remote_url", "remote_token", "remote_context"

#: Commands that work on a fleet elsewhere, too; any other is for the machine of its fleet.
REMOTE = frozenset(
    {
        *("send", "route", "events", "health", "approve", "reject"),
        *("agents", "agents show", "agents pause", "agents resume", "agents drain"),
        *("queue stats", "queue list", "queue inspect", "queue cancel", "queue retry"),
        *("queue resend", "queue drain", "queue move"),
        *("dlq list", "dlq show", "dlq replay", "dlq purge"),
        *("alerts", "alerts silence", "alerts unsilence", "alerts ack"),
        *("token create", "token list", "token revoke"),
    }
)
#: Commands that run a fleet, or a part of it. A context in use does not count for them: a service
#: that starts again would not come back.
SERVICES = frozenset({"up", "host", "api", "flower", "upstream", "broker"})
#: Commands that are about neither.
NEITHER = frozenset({"context add", "context use", "context list", "context remove"})


@dataclass(frozen=True, slots=True)
class Destination:
    """A fleet elsewhere."""

    url: str
    token: str | None
    credential: str  #: the token, in errors
    chosen_by: str  #: what a person leaves out to work on this machine


def destination(ctx: click.Context) -> Destination | None:
    """The fleet elsewhere that a command is for; None for this machine. Raises ConfigError."""
    url, token, context = (ctx.meta.get(name) for name in (URL, TOKEN, CONTEXT))
    if url and context:
        raise click.UsageError("Give --url or --context, not both.")
    if url:
        return _by_url(url, token, "leave out --url")
    if context:
        return _by_context(context, token, "leave out --context")
    if (given := elsewhere()) is not None:
        found = _by_url(given[0], token, "unset FLEET_URL") if given[0] else None
    else:
        current = contexts.read().current
        leave = "`fleet context use --none` leaves it"
        found = _by_context(current, token, leave) if current else None
    if found is None and token:
        raise click.UsageError("--token is for a fleet elsewhere: give its --url, or a --context.")
    return found


def check_here(ctx: click.Context) -> None:
    """Refuse a command that works on this machine only while another fleet is chosen."""
    name = ctx.command_path.partition(" ")[2]
    if name in REMOTE or name in NEITHER:
        return
    if name in SERVICES and not (ctx.meta.get(URL) or ctx.meta.get(CONTEXT) or elsewhere()):
        return
    chosen = destination(ctx)
    if chosen is not None:
        raise click.UsageError(
            f"`fleet {name}` works on the machine of its fleet only, not on {chosen.url}: "
            f"{chosen.chosen_by}."
        )


def _by_url(url: str, token: str | None, leave: str) -> Destination:
    if token:
        return Destination(url, token, "the token given by --token", leave)
    return Destination(url, os.environ.get("FLEET_TOKEN") or None, "the token FLEET_TOKEN", leave)


def _by_context(name: str, token: str | None, leave: str) -> Destination:
    context = contexts.read().get(name)
    if token:
        return Destination(context.url, token, "the token given by --token", leave)
    kept = contexts.token_of(name, context)
    return Destination(context.url, kept, f"the token of context {name}", leave)
