"""`fleet events`: the bus in the terminal."""

import re
import time
from collections.abc import Iterator

import click

from fleet.cli.backend import backend
from fleet.cli.base import Command, wants_json
from fleet.cli.output import event_line, note, print_json_line, print_line
from fleet.cli.waiting import RESYNC, WatchSource
from fleet.errors import BrokerUnavailable
from fleet.ledger import bus
from fleet.ledger.bus import BusEvent
from fleet.ledger.bus_types import TYPES
from fleet.ledger.ids import PREFIX_CHARS_MIN, is_short
from routing.nearest_name import question

START = "0-0"
#: The fields that `--id` looks at.
_IDS = ("dispatch_id", "event_id")
_PLACE = re.compile(r"\d{1,20}(-\d{1,20})?\Z")

#: A broker that restarts is back within seconds; a person is told and can stop waiting.
RETRY_S = 1.0


@click.command(cls=Command)
@click.option("--since", metavar="ID", help="Only what came after this stream id.")
@click.option("--agent", metavar="NAME", help="Only this agent's.")
@click.option("--type", "kind", metavar="TYPE", help="Only this type, such as dispatch_failed.")
@click.option("--id", "id_", metavar="ID", help="Only this dispatch's or event's.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="With --follow: longest wait for a fleet that is away; without it for ever.",
)
def events(
    since: str | None,
    agent: str | None,
    kind: str | None,
    id_: str | None,
    follow: bool,
    timeout: float | None,
) -> None:
    """Read the bus: every state change, oldest first.

    Begins at --since; otherwise at the oldest event kept or, with --follow, at the next one. The
    beginning of an id, 6 characters or more, is enough for --id.
    """
    if id_ is not None and is_short(id_):
        raise click.UsageError(f"--id: give {PREFIX_CHARS_MIN} or more characters of an id.")
    if kind is not None and kind not in TYPES:
        raise click.UsageError(f"--type: {kind!r} is not a type of events{question(kind, TYPES)}")
    if since is not None and not _PLACE.match(since):
        raise click.UsageError(f"--since: {since!r} is not a stream id, such as 1772822677655-0.")
    if timeout is not None and not follow:
        raise click.UsageError("--timeout is for --follow.")
    source = backend().connect() if follow else None
    after = since or (source.last_id() if source else START)
    if since is not None and backend().is_trimmed(since):
        note(f"fleet: the bus no longer holds what came right after {since}; older events are lost")
    found = _following(source, after, timeout) if source else backend().stored_events(after)
    for event in found:
        if event.type == RESYNC:
            note(f"fleet: events may be missing here: {event.fields.get('reason')}")
            continue
        if (agent and event.fields.get("agent") != agent) or (kind and event.type != kind):
            continue
        if id_ and not any(str(event.fields.get(name, "")).startswith(id_) for name in _IDS):
            continue
        if wants_json():
            print_json_line(event.to_wire())
        else:
            print_line(event_line(event), flush=follow)


def _following(source: WatchSource, after: str, timeout_s: float | None) -> Iterator[BusEvent]:
    """Yield the entries after `after`, for ever; waits for a fleet that is away."""
    away_since = 0.0
    while True:
        try:
            after = after or source.last_id()
            for event in source.read(after, block_ms=bus.BLOCK_MS):
                after = event.id
                yield event
            away_since = 0.0
        except BrokerUnavailable as error:
            if not away_since:
                note(f"fleet: {error} Waiting for it.")
            away_since = away_since or time.monotonic()
            if timeout_s is not None and time.monotonic() - away_since > timeout_s:
                raise
            time.sleep(RETRY_S)
