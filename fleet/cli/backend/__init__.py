"""The fleet that a command works on: `backend()` gives it, here or elsewhere, in one shape."""

from typing import TYPE_CHECKING

import click

from fleet.cli.destination import destination

if TYPE_CHECKING:
    from fleet.cli.backend.protocol import Backend

_KEY = "fleet.backend"


def backend() -> "Backend":
    """The fleet of the running command, made once. Raises ConfigError and UsageError."""
    ctx = click.get_current_context().find_root()
    if _KEY not in ctx.meta:
        ctx.meta[_KEY] = _make(ctx)
    found: Backend = ctx.meta[_KEY]
    return found


def _make(ctx: click.Context) -> "Backend":
    chosen = destination(ctx)
    if chosen is None:
        from fleet.cli.backend.local import LocalBackend

        return LocalBackend()
    from fleet.cli.backend.remote import RemoteBackend
    from fleet.client.fleet import Fleet

    fleet = Fleet(chosen.url, token=chosen.token, credential=chosen.credential)
    ctx.call_on_close(fleet.close)
    return RemoteBackend(fleet)
