"""Ids as a person types them: whole, or the beginning of one."""

from fleet.cli.backend import backend
from fleet.cli.backend.protocol import Record
from fleet.errors import NotPossible, Unknown
from fleet.ledger.ids import hint

#: Dispatches that a sentence names.
_NAMED_MAX = 10


def find_record(
    given: str, source: str | None = None, sent_by: str | None = None, *, content: bool = False
) -> tuple[Record | None, Record | None]:
    """The dispatch of this id, or else the event; a whole id before the beginning of one.

    Raises Unknown and Ambiguous.
    """
    record = backend().dispatch(given, content=content)
    if record is not None and record["dispatch_id"] == given:
        return record, None
    event = None
    try:
        event = backend().event(given, source, sent_by, content=content)
    except NotPossible:
        # Where a dispatch was found, none of several events that begin so is meant.
        if record is None:
            raise
    if event is not None and (record is None or event["event_id"] == given):
        return None, event
    if record is None:
        raise Unknown(
            f"{given[:64]!r} is neither a dispatch nor an event; see `fleet queue list` and "
            f"--source.{hint(given)}"
        )
    return record, None


def dispatch_of(given: str, *, content: bool = False) -> Record:
    """The dispatch of this id, or the only one of the event of this id.

    Raises Unknown, Ambiguous, and NotPossible for an event that has several.
    """
    record, event = find_record(given, content=content)
    if record:
        return record
    members = event["members"] if event else []
    if len(members) != 1:
        named = [f"{one['dispatch_id']} ({one['agent']})" for one in members[:_NAMED_MAX]]
        more = ", and more" if len(members) > _NAMED_MAX else ""
        raise NotPossible(f"{given} has several dispatches, name one: {', '.join(named)}{more}.")
    return dispatch_of(str(members[0]["dispatch_id"]), content=content)
