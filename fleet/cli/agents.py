"""`fleet agents`: show the agents with holder and state; pause, resume and drain them."""

import time

import click

from fleet.cli.backend import backend
from fleet.cli.base import Group, wants_json
from fleet.cli.output import (
    duration,
    print_json,
    print_line,
    print_pairs,
    print_table,
    short_id,
)
from fleet.errors import FleetError
from fleet.formats.money import money

#: A drain checks this often whether the turns have ended.
_DRAIN_POLL_INTERVAL_S = 0.2


class _ByName(Group):
    """`fleet agents NAME` is `fleet agents show NAME`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The named subcommand, or `show` with everything as its arguments."""
        if args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_ByName, invoke_without_command=True, subcommand_metavar="[NAME] | COMMAND ...")
@click.pass_context
def agents(ctx: click.Context) -> None:
    """Show the agents; pause, resume and drain them."""
    if ctx.invoked_subcommand is None:
        _show_all()


@agents.command()
@click.argument("name")
def show(name: str) -> None:
    """Show one agent with its configuration and its counts."""
    row = backend().agent(name)
    if wants_json():
        print_json(row)
    else:
        print_pairs((key, value) for key, value in row.items() if value not in ([], {}))


@agents.command()
@click.argument("name", required=False)
@click.option("--all", "everyone", is_flag=True, help="All agents.")
def pause(name: str | None, everyone: bool) -> None:
    """Let agents finish their running turn and start no other."""
    _switch(name, everyone, "paused")


@agents.command()
@click.argument("name", required=False)
@click.option("--all", "everyone", is_flag=True, help="All agents.")
def resume(name: str | None, everyone: bool) -> None:
    """Let paused agents go on."""
    _switch(name, everyone, "resumed")


@agents.command()
@click.argument("name", required=False)
@click.option("--all", "everyone", is_flag=True, help="All agents.")
@click.option(
    "--timeout", default=300.0, metavar="S", type=click.FloatRange(min=0), help="Longest wait."
)
def drain(name: str | None, everyone: bool, timeout: float) -> None:
    """Pause agents and wait until their running turns have ended; `resume` lets them go on."""
    names = _switch(name, everyone, "paused")
    patience = time.monotonic() + timeout
    while busy := [row["agent"] for row in backend().agents(names) if row["active"]]:
        if time.monotonic() > patience:
            raise FleetError(
                f"{', '.join(busy)}: still running after {timeout:g} s; drain again to wait longer."
            )
        time.sleep(_DRAIN_POLL_INTERVAL_S)
    if not wants_json():
        print_line("drained: nothing runs")


def _switch(name: str | None, everyone: bool, done: str) -> list[str]:
    """Pause or resume agents; their names."""
    if everyone == (name is not None):
        raise click.UsageError("Give one agent's name, or --all.")
    report = backend().switch(name, paused=done == "paused")
    names = [row["agent"] for row in report]
    if wants_json():
        print_json(report)
        return names
    for row in report:
        before = (
            "" if row["changed"] else f" (was {'already' if done == 'paused' else 'not'} paused)"
        )
        print_line(f"{row['agent']}: {done}{before}")
    return names


def _show_all() -> None:
    rows = backend().agents()
    if wants_json():
        print_json(rows)
        return
    stopped = any(row["hold_reason"] for row in rows)
    print_table(
        [
            "agent",
            "status",
            "consuming",
            "model",
            "queued",
            "active",
            "holder",
            "held",
            "spent today",
            *(["stopped by"] if stopped else []),
        ],
        [
            (
                row["agent"],
                row["status"],
                row["consuming"],
                row["model"] or row["runner"],
                row["queued"],
                short_id(row["active"]),
                row["holder"],
                duration(row["held_s"]) if row["holder"] else None,
                money(row["spend"]["usd"]),
                *([row["hold_reason"]] if stopped else []),
            )
            for row in rows
        ],
    )
