"""The redrawn progress of `fleet send --wait` on a terminal."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

from rich.console import Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fleet.cli.backend.protocol import LiveView
from fleet.cli.output import STATE_COLOURS, console, duration, printable
from fleet.cli.waiting import Watched
from fleet.ledger.bus import BusEvent

REDRAWS_PER_S = 8


def follow_live(
    events: Iterator[BusEvent | None],
    watched: list[Watched],
    listening: AbstractContextManager[LiveView],
) -> None:
    """Draw `watched`, and what they say, until `events` ends; what is drawn disappears with it."""
    with (
        listening as live_texts,
        Live(
            _Picture(watched, live_texts),
            console=console(stderr=True),
            refresh_per_second=REDRAWS_PER_S,
            transient=True,
        ),
    ):
        for _ in events:
            pass


class _Picture:
    """A line per dispatch, made anew at each redraw, so that the seconds run."""

    def __init__(self, watched: list[Watched], live_texts: LiveView) -> None:
        self._live_texts = live_texts
        #: Grows while a chain goes on.
        self._watched = watched
        self._spinners: dict[str, Spinner] = {}

    def __rich__(self) -> Group:
        table = Table.grid(padding=(0, 2))
        texts = []
        for one in self._watched:
            spinner = self._spinners.setdefault(one.dispatch_id, Spinner("dots"))
            table.add_row(
                Text("•") if one.ended else spinner,
                Text(one.agent),
                Text(one.state, STATE_COLOURS.get(one.state, "")),
                Text(_took(one)),
                Text(printable(one.note), "dim"),
            )
            if not one.ended and (text := self._live_texts.tail(one.dispatch_id)):
                texts.append(Text.assemble((f"{one.agent}: ", "dim"), printable(text)))
        return Group(table, *texts)


def _took(one: Watched) -> str:
    if one.record is not None:
        return duration(one.record.get("elapsed_s"))
    return duration(time.monotonic() - one.since)
