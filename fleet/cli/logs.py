"""`fleet logs`: what the agents and the other processes of `fleet up` printed."""

import heapq
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path

import click

from fleet.cli.base import Command, wants_json
from fleet.cli.output import print_json_line, print_line
from fleet.config.nearest_name import nearest
from fleet.config.settings import load
from fleet.errors import FleetError
from fleet.formats.since import parse_since
from fleet.supervisor.log_reader import Log, LogLine, names
from fleet.supervisor.output import log_time

LINES_DEFAULT = 100
POLL_INTERVAL_S = 0.2

#: Celery's own time, which stands before each line already.
_CELERY_TIME = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: ")


def _moment(_ctx: click.Context, _: click.Parameter, value: str | None) -> datetime | None:
    """The moment of a span before now, such as `10m`, or of a time."""
    if value is None:
        return None
    try:
        return datetime.fromtimestamp(parse_since(value, time.time() * 1000) / 1000, UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value[:64]!r} is neither a span, such as 10m, 2h or 1d, nor a time."
        ) from None


@click.command(cls=Command)
@click.argument("agent", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "--since", callback=_moment, metavar="10m", help="Only what is not older; also a time."
)
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"Only the last N; without --since {LINES_DEFAULT}.",
)
def logs(agent: str | None, follow: bool, since: datetime | None, lines: int | None) -> None:
    """Show what an agent has printed, or every process of the fleet.

    AGENT may be another process of `fleet up` too, such as api. Reads the files in data_dir/log, so
    the fleet need not run. Each line is told with its time in UTC.
    """
    folder = load().data_dir / "log"
    found = [Log(folder, name) for name in _wanted(folder, agent)]
    if lines is None and since is None:
        lines = LINES_DEFAULT
    width = max((len(log.name) for log in found), default=0) if agent is None else 0
    try:
        for line in _stored(found, log_time(since) if since else "", lines):
            _print(line, width)
        if follow:
            with suppress(KeyboardInterrupt):  # the way to end it
                _follow(folder, found, width, every=agent is None)
    finally:
        for log in found:
            log.close()


def _wanted(folder: Path, agent: str | None) -> list[str]:
    known = names(folder)
    if agent is None:
        return known
    agents = load().agents
    if agent in known or agent in agents:
        return [agent]
    close = nearest(agent, [*agents, *known])
    raise FleetError(
        f"There is no agent and no log {agent[:64]!r}"
        + (f": did you mean {close!r}?" if close else f"; there are {', '.join(agents)}.")
    )


def _stored(found: Iterable[Log], since: str, last: int | None) -> Iterator[LogLine]:
    # Without `since` nothing but the last lines of each log can be among the last of all.
    each = last if not since else None
    merged = heapq.merge(*(log.lines(each) for log in found), key=attrgetter("time"))
    kept = (line for line in merged if line.time >= since)
    yield from kept if last is None else deque(kept, last)


def _follow(folder: Path, found: list[Log], width: int, *, every: bool) -> None:
    """Print what is written from now on; with `every`, in logs that begin later too."""
    while True:
        time.sleep(POLL_INTERVAL_S)
        if every:
            known = {log.name for log in found}
            found += [Log(folder, name) for name in names(folder) if name not in known]
        news = [line for log in found for line in log.lines()]
        for line in sorted(news, key=attrgetter("time")):
            _print(line, width)


def _print(line: LogLine, width: int) -> None:
    if wants_json():
        print_json_line({"time": line.time, "name": line.name, "line": line.text})
        return
    text = _CELERY_TIME.sub("[", line.text)
    head = f"{line.time[:10]} {line.time[11:19]}"
    print_line(f"{head} {line.name:{width}} {text}" if width else f"{head} {text}", flush=True)
