"""`fleet up`: the whole fleet on this machine."""

import asyncio
import shlex

import click

from fleet.cli.base import Command, wants_json
from fleet.cli.output import note, print_json_line, print_line
from fleet.config.settings import Settings, find_file, load
from fleet.errors import ConfigError
from fleet.formats.redaction import mask_url
from fleet.ops.doctor import startup
from fleet.quiet_log import guard_log
from fleet.store.address import plain_url
from fleet.supervisor.processes import Addresses
from fleet.supervisor.run import run_fleet


@click.command(cls=Command)
@click.option("--quiet", is_flag=True, help="Print warnings and errors only.")
def up(quiet: bool) -> int:
    """Run the whole fleet on this machine until Ctrl-C.

    Broker (embedded when none is configured), agent workers, intake, beat, API and Flower. Ctrl-C
    lets running turns end, up to fleet.drain_s, and stops everything; a second one does so at once.
    The fleet is up when every agent consumes and the API is ready; Flower answers a second later.
    It takes a changed configuration at SIGHUP, as by `fleet reload`. It refuses, or warns of, what
    `fleet doctor` finds wrong.
    """
    guard_log()
    settings = load()
    wants = wants_json()
    send = _next_command(settings)  # before the file's copy takes its place

    async def on_ready(addresses: Addresses) -> None:
        if wants:
            print_json_line(_places(settings, addresses))
        elif not quiet:
            print_line(_block(_places(settings, addresses), send), flush=True)
        await asyncio.Event().wait()

    def progress(line: str) -> None:
        if not quiet:
            note(line)

    code = run_fleet(settings, report=note, progress=progress, on_ready=on_ready, check=_check)
    progress("fleet: stopped")
    return code


def _check(settings: Settings) -> list[str]:
    """The warnings about a configuration. Raises ConfigError where it cannot start."""
    warnings = []
    for finding in startup.findings(settings):
        sentence = f"{finding.what}; {finding.remedy}."
        if finding.level == "error":
            raise ConfigError(sentence)
        warnings.append(sentence)
    return warnings


def _places(settings: Settings, addresses: Addresses) -> dict[str, str | None]:
    data_dir = settings.data_dir.absolute()
    return {
        "broker": mask_url(plain_url(settings)),
        "api": addresses.api,
        "flower": addresses.flower,
        "data": str(data_dir),
        "log": str(data_dir / "log"),
    }


def _block(places: dict[str, str | None], send: str) -> str:
    rows = {
        "next": send,
        "logs": f"fleet logs -f, or {places['log']}",
        "flower": places["flower"] and f"{places['flower']} (starting)",
        "broker": places["broker"],
    }
    lines = [f"  {name:6}  {value}" for name, value in rows.items() if value]
    first = f"fleet is up: console and API at {places['api']}  (Ctrl-C stops it)"
    return "\n".join([first, *lines])


def _next_command(settings: Settings) -> str:
    """A command that sends an event with this configuration."""
    words = ["fleet", "send", "Hello", "--wait"]
    if not settings.routes.default:
        words += ["--to", next(iter(settings.agents))]
    file = find_file()
    if file is not None and str(file) != "fleet.toml":
        words += ["--config", str(file)]
    return shlex.join(words)
