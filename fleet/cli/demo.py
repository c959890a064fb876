"""`fleet demo`: what `make demo` shows."""

import asyncio
import os
import threading
import time
from collections.abc import Sequence

import click

from fleet import runtime
from fleet.cli.base import Command, wants_json
from fleet.cli.demo_run import SCENES, Result, demo_folder, surprises
from fleet.cli.output import (
    duration,
    event_line,
    note,
    print_json,
    print_line,
    print_table,
    printable,
)
from fleet.cli.waiting import StoreSource, Watched, watch
from fleet.config.settings import load
from fleet.errors import FleetError
from fleet.ledger import bus
from fleet.supervisor.processes import Addresses
from fleet.supervisor.run import run_fleet

INTERRUPTED = 130
#: The longest scene takes 3 s.
TIMEOUT_S = 30.0
#: An answer in the table is cut here.
ANSWER_CHARS = 48


@click.command(cls=Command)
def demo() -> int:
    """Run the built-in fleet once, end to end, and show outcomes.

    It uses its own broker, ports and data folder, and removes the folder afterwards. Exit 1 when an
    outcome is not the expected one.
    """
    if os.environ.get("FLEET_CONFIG"):
        note("fleet: the demo runs the built-in fleet and ignores FLEET_CONFIG")
    began = time.monotonic()
    results: list[Result] = []

    async def on_ready(addresses: Addresses) -> None:
        note(f"fleet: up after {time.monotonic() - began:.1f} s; API {addresses.api}")
        try:
            results.extend(await asyncio.to_thread(_play, stopped, quiet))
        finally:
            stopped.set()

    quiet, stopped = wants_json(), threading.Event()
    with demo_folder():
        settings = load()
        code = run_fleet(settings, report=note, progress=note, on_ready=on_ready)
    if code or not results:
        return code or INTERRUPTED
    _show(results, time.monotonic() - began)
    wrong = surprises(results)
    if wrong:
        raise FleetError(f"The demo failed: {'; '.join(wrong)}.")
    if not quiet:
        print_line(f"All {len(results)} outcomes are as expected; everything has stopped.")
    return 0


def _play(stopped: threading.Event, quiet: bool) -> list[Result]:
    """Send every scene's event, show what happens, and return the outcomes."""
    after = bus.last_id(runtime.current().store)
    cast = [
        (scene, Watched(dispatch_id, agent))
        for scene in SCENES
        for dispatch_id, agent in runtime.current().intake.accept(scene.event).dispatches
    ]
    watched = [one for _, one in cast]
    for event in watch(_source, watched, after, TIMEOUT_S):
        if stopped.is_set():
            return []
        if event is not None and not quiet:
            print_line(event_line(event), flush=True)
    return [Result(scene=scene, agent=one.agent, record=one.record or {}) for scene, one in cast]


def _source() -> StoreSource:
    return StoreSource(runtime.current().connect())


def _show(results: Sequence[Result], took_s: float) -> None:
    if wants_json():
        rows = [{"how": r.scene.how, "as_expected": r.as_expected, **r.record} for r in results]
        print_json({"took_s": round(took_s, 1), "dispatches": rows})
        return
    print_table(
        ["event", "agent", "state", "waited", "took", "outcome"],
        [
            (
                result.scene.how,
                result.agent,
                result.record["state"],
                f"{1000 * result.waited_s:.0f}ms",
                duration(result.record.get("elapsed_s")),
                _outcome(result),
            )
            for result in results
        ],
    )
    print_line(f"from nothing to stopped in {took_s:.1f} s")


def _outcome(result: Result) -> str:
    if "stage" in result.record:
        return f"dispatch_failed, stage {result.record['stage']}: {result.record.get('error')}"
    answer = printable(str(result.record.get("answer") or ""))
    return answer if len(answer) <= ANSWER_CHARS else f"{answer[:ANSWER_CHARS]}…"
