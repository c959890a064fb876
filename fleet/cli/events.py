"""`fleet events`: the bus in the terminal."""

import re
import time
from collections.abc import Iterator

import click

from fleet import runtime
from fleet.cli.base import Command, wants_json
from fleet.cli.output import event_line, note, print_json_line, print_line
from fleet.errors import BrokerUnavailable
from fleet.ledger import bus
from fleet.ledger.bus import BusEvent
from fleet.ledger.ids import PREFIX_CHARS_MIN, is_short
from fleet.store import Store, keys
from fleet.store.connection import reachable

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
def events(
    since: str | None, agent: str | None, kind: str | None, id_: str | None, follow: bool
) -> None:
    """Read the bus: every state change, oldest first.

    Begins at --since; otherwise at the oldest event kept or, with --follow, at the next one. The
    beginning of an id, 6 characters or more, is enough for --id.
    """
    if id_ is not None and is_short(id_):
        raise click.UsageError(f"--id: give {PREFIX_CHARS_MIN} or more characters of an id.")
    if since is not None and not _PLACE.match(since):
        raise click.UsageError(f"--since: {since!r} is not a stream id, such as 1772822677655-0.")
    store = runtime.current().store
    after = since or (bus.last_id(store) if follow else START)
    if since is not None and _trimmed(store, since):
        note(f"fleet: the bus no longer holds what came right after {since}; older events are lost")
    for event in _following(store, after) if follow else _stored(store, after):
        if (agent and event.fields.get("agent") != agent) or (kind and event.type != kind):
            continue
        if id_ and not any(str(event.fields.get(name, "")).startswith(id_) for name in _IDS):
            continue
        if wants_json():
            print_json_line(event.to_wire())
        else:
            print_line(event_line(event), flush=follow)


def _stored(store: Store, after: str) -> Iterator[BusEvent]:
    """Yield the stored entries, up to the one that was the newest at the start."""
    end = _order(bus.last_id(store))
    while _order(after) < end:
        chunk = bus.read(store, after)
        if not chunk:
            return
        for event in chunk:
            if _order(event.id) > end:
                return
            yield event
        after = chunk[-1].id


def _following(store: Store, after: str) -> Iterator[BusEvent]:
    """Yield the entries after `after`, for ever; waits for a broker that is away."""
    waiting = False
    while True:
        try:
            for event in bus.read(store, after, block_ms=bus.BLOCK_MS):
                after = event.id
                yield event
            waiting = False
        except BrokerUnavailable as error:
            if not waiting:
                note(f"fleet: {error} Waiting for it.")
            waiting = True
            time.sleep(RETRY_S)


def _trimmed(store: Store, since: str) -> bool:
    with reachable():
        first = store.client.xrange(keys.BUS, count=1)
        info = store.client.xinfo_stream(keys.BUS) if first else {}
    deleted = info.get("max-deleted-entry-id", START)
    return bool(first) and _order(since) < _order(str(deleted))


def _order(stream_id: str) -> tuple[int, int]:
    millis, _, number = stream_id.partition("-")
    return int(millis), int(number or 0)
