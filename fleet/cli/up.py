"""`fleet up`: the whole fleet on this machine."""

import asyncio

import click

from fleet.cli.base import Command, wants_json
from fleet.cli.output import note, print_json_line, print_line
from fleet.config.settings import load
from fleet.formats.redaction import mask_url
from fleet.quiet_log import keep_content_out
from fleet.store.address import plain_url
from fleet.supervisor.processes import Addresses
from fleet.supervisor.run import run_fleet
from fleet.system.output_guard import guard_output


@click.command(cls=Command)
def up() -> int:
    """Run the whole fleet on this machine until Ctrl-C.

    Broker (embedded when none is configured), agent workers, intake, beat, API and Flower. Ctrl-C
    lets running turns end, up to fleet.drain_s, and stops everything; a second one does so at once.
    The fleet is up when every agent consumes and the API is ready; Flower answers a second later.
    """
    guard_output()
    keep_content_out()
    settings = load()

    async def on_ready(addresses: Addresses) -> None:
        parts = {
            "broker": mask_url(plain_url(settings)),
            "api": addresses.api,
            "flower": addresses.flower,
            "data": str(settings.data_dir.absolute()),
        }
        if wants:
            print_json_line(parts)
        else:
            if addresses.flower:
                parts["flower"] = f"{addresses.flower} (starting)"
            shown = "  ".join(f"{name} {value}" for name, value in parts.items() if value)
            print_line(f"fleet is up: {shown}  (Ctrl-C stops it)", flush=True)
        await asyncio.Event().wait()

    wants = wants_json()
    code = run_fleet(settings, report=note, on_ready=on_ready)
    note("fleet: stopped")
    return code
