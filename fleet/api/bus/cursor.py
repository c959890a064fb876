"""A client's place on the bus, and the check that it can resume there without a gap.

On the wire a place is `<epoch>.<stream id>`; a bare stream id is accepted too. The epoch identifies
the data set: a place from a wiped or restored broker is recognised by it.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from fleet.ledger.bus import Window

Place = tuple[int, int]  #: a stream id as numbers, which sort as the stream does

BEGINNING: Place = (0, 0)
_PART_MAX = 2**64 - 1
_CURSOR = re.compile(r"(?:([0-9A-Za-z_-]{1,64})\.)?([0-9]{1,20})(?:-([0-9]{1,20}))?")


class Resync(StrEnum):
    """The `reason` of a `resync_required`: the client must fetch the state again."""

    INVALID = "invalid_last_event_id"
    TRIMMED = "trimmed"
    GAP_TOO_LARGE = "gap_too_large"
    EPOCH_CHANGED = "epoch_changed"
    SLOW_CONSUMER = "slow_consumer"
    BUS_UNAVAILABLE = "bus_unavailable"


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last entry seen by a client."""

    epoch: str | None
    place: Place


def parse_cursor(text: str) -> Cursor | None:
    """Parse a cursor; None when it is malformed."""
    found = _CURSOR.fullmatch(text)
    if found is None:
        return None
    place = (int(found[2]), int(found[3] or 0))
    return Cursor(found[1], place) if max(place) <= _PART_MAX else None


def place_of(entry_id: str) -> Place:
    """Parse a stream id."""
    millis, _, number = entry_id.partition("-")
    return int(millis), int(number or 0)


def verdict(cursor: Cursor, window: Window) -> Resync | None:
    """The reason why the stream cannot be resumed at `cursor`; None when it can."""
    if cursor.epoch is not None and cursor.epoch != window.epoch:
        return Resync.EPOCH_CHANGED
    if cursor.place > place_of(window.last):
        return Resync.EPOCH_CHANGED
    if window.first is None:
        reached = cursor.place == place_of(window.last)
    else:
        reached = cursor.place >= place_of(window.first)
    if reached or (cursor.place == BEGINNING and not window.trimmed):
        return None
    # Nothing was ever trimmed: an entry before the first one was on another stream.
    return Resync.TRIMMED if window.trimmed else Resync.EPOCH_CHANGED
