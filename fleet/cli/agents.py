"""`fleet agents`: show the agents with holder and state; pause, resume and drain them."""

import time
from typing import Any

import click

from fleet import runtime
from fleet.cli.base import Group, wants_json
from fleet.cli.output import (
    duration,
    print_json,
    print_line,
    print_pairs,
    print_table,
    short_id,
)
from fleet.config.settings import load
from fleet.errors import FleetError
from fleet.formats.money import money
from fleet.ledger import operations, views
from fleet.ops import agents as agents_table

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
    settings = load()
    operations.known_agents(settings, name)
    row = agents_table.rows(runtime.current().store, settings, [name])[0]
    row["timeout_s"] = settings.timeout_s(name)
    row["fallbacks"] = [tier.model for tier in settings.agents[name].fallbacks]
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
    _switch(name, everyone, "paused")
    names = operations.known_agents(load(), name)
    patience = time.monotonic() + timeout
    while busy := [agent for agent, row in _found(names).items() if row["active"]]:
        if time.monotonic() > patience:
            raise FleetError(
                f"{', '.join(busy)}: still running after {timeout:g} s; drain again to wait longer."
            )
        time.sleep(_DRAIN_POLL_INTERVAL_S)
    if not wants_json():
        print_line("drained: nothing runs")


def _found(names: list[str]) -> dict[str, dict[str, Any]]:
    return views.agents(runtime.current().store, names)


def _switch(name: str | None, everyone: bool, done: str) -> None:
    if everyone == (name is not None):
        raise click.UsageError("Give one agent's name, or --all.")
    change = operations.pause if done == "paused" else operations.resume
    report = [
        {"agent": agent, "changed": change(runtime.current().ledger, agent)}
        for agent in operations.known_agents(load(), name)
    ]
    if wants_json():
        print_json(report)
        return
    for row in report:
        before = (
            "" if row["changed"] else f" (was {'already' if done == 'paused' else 'not'} paused)"
        )
        print_line(f"{row['agent']}: {done}{before}")


def _show_all() -> None:
    store = runtime.current().store
    names = operations.agents_with_work(store, load(), None)
    rows = agents_table.rows(store, load(), names)
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
