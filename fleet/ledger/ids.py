"""Finding a dispatch or an event by the beginning of its id.

A whole id costs nothing here. A prefix costs two round trips: a range of a sorted set, in time that
grows with the logarithm of its size, and the records of what it found.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fleet.ledger.operations import NotPossible, Unknown
from fleet.store import Store, keys
from fleet.store.connection import reachable
from routing.event import SENT_LOCALLY

#: A shorter one is too likely to become ambiguous.
PREFIX_CHARS_MIN = 6
#: The most ids of one prefix that are read.
FOUND_MAX = 200
#: The most candidates that a sentence names.
NAMED_MAX = 10
#: The length of a whole id of a dispatch.
WHOLE_CHARS = len(keys.dispatch_id("", ""))

#: Called with an agent and a sender (`Event.sent_by`): True where the caller may see their work.
Sees = Callable[[str, str], bool]


def everything(_agent: str, _sent_by: str) -> bool:
    """The rights of an operator at the machine."""
    return True


class Ambiguous(NotPossible):
    """Several ids begin so (HTTP 409); the sentence names candidates."""


@dataclass(frozen=True, slots=True)
class FoundEvent:
    """The three parts of an event's identity."""

    event_id: str
    source: str
    sent_by: str


def find_dispatch(store: Store, given: str, sees: Sees = everything) -> str:
    """The id of the one dispatch that begins with `given`, among those that the caller sees.

    Raises Ambiguous, and Unknown where none does. A whole id is returned as it is, known or not.
    """
    if len(given) >= WHOLE_CHARS:
        return given
    ids = _starting(store, keys.IDS, given)
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        for one in ids:
            pipe.hmget(keys.dispatch(one), "agent", "sent_by", "state")
        rows = pipe.execute() if ids else []
    found = [
        (one, f"{one} ({agent}, {state})")
        for one, (agent, sent_by, state) in zip(ids, rows, strict=True)
        if agent and sees(agent, sent_by or SENT_LOCALLY)
    ]
    _check(given, found, len(ids))
    if not found:
        raise unknown(given)
    return found[0][0]


def unknown(given: str) -> Unknown:
    """The refusal of an id, or of a beginning, of no dispatch."""
    return Unknown(f"There is no dispatch {given[:64]!r}; see `fleet queue list`.{hint(given)}")


def hint(given: str) -> str:
    """The remedy for a beginning that is too short, or an empty string."""
    return f" Give {PREFIX_CHARS_MIN} or more of its characters." if is_short(given) else ""


def is_short(given: str) -> bool:
    """True where `given` is too short to be taken for the beginning of an id."""
    return len(given) < PREFIX_CHARS_MIN


def find_event(
    store: Store,
    given: str,
    sees: Sees = everything,
    *,
    source: str | None = None,
    sent_by: str | None = None,
) -> FoundEvent | None:
    """The one event whose id begins with `given`; None where none does.

    Of any source and sender, unless they are named. An event is seen by who sees all its
    dispatches. Raises Ambiguous.
    """
    digests = [member.rpartition("\n")[2] for member in _starting(store, keys.EVENT_IDS, given)]
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        for one in digests:
            pipe.hmget(keys.event(one), "event_id", "source", "sent_by", "ids", "later")
        rows = pipe.execute() if digests else []
    found = [
        (FoundEvent(event_id, its_source, sender or SENT_LOCALLY), f"{event_id} ({its_source})")
        for event_id, its_source, sender, ids, later in rows
        if event_id
        and source in (None, its_source)
        and sent_by in (None, sender or SENT_LOCALLY)
        and all(sees(one, sender or SENT_LOCALLY) for one in _agents(f"{ids} {later or ''}"))
    ]
    whole = [one for one in found if one[0].event_id == given]
    found = whole or found
    _check(given, found, len(digests))
    return found[0][0] if found else None


def _agents(pairs: str) -> Iterator[str]:
    return iter(pairs.split()[1::2])


def _starting(store: Store, key: str, given: str) -> list[str]:
    """At most FOUND_MAX members of `key` that begin with `given`; none where that is too short."""
    if is_short(given):
        return []
    first = given.encode(errors="replace")
    with reachable():
        found: list[str] = store.client.zrangebylex(  # type: ignore[assignment]
            key, b"[" + first, b"[" + first + b"\xff", 0, FOUND_MAX
        )
    return found


def _check(given: str, found: Sequence[tuple[object, str]], read: int) -> None:
    """Raise Ambiguous where several were found, or one, and more may be unread."""
    if not found or (len(found) == 1 and read < FOUND_MAX):
        return
    named = ", ".join(words for _, words in found[:NAMED_MAX])
    more = ", and more" if len(found) > NAMED_MAX or read == FOUND_MAX else ""
    raise Ambiguous(f"{given!r} is the beginning of several ids: {named}{more}. Give more of it.")
