"""Ids as a person types them: whole, or the beginning of one."""

from typing import Any

from fleet import runtime
from fleet.auth import tokens
from fleet.ledger import ids, parents, views
from fleet.ledger.operations import NotPossible, Unknown
from routing.event import SOURCE_DEFAULT

Record = dict[str, Any]
#: Dispatches that a sentence names.
_NAMED_MAX = 10


def whole_id(given: str) -> str:
    """The id of the dispatch that begins with `given`. Raises Unknown and Ambiguous."""
    return ids.find_dispatch(runtime.current().store, given)


def find_record(
    given: str, source: str | None = None, sent_by: str | None = None, *, content: bool = False
) -> tuple[Record | None, Record | None]:
    """The dispatch of this id, or else the event; a whole id before the beginning of one.

    Raises Unknown and Ambiguous.
    """
    store = runtime.current().store
    if record := views.get(store, given, content=content):
        return record, None
    whole = source or SOURCE_DEFAULT
    sender = sent_by
    if sender is None:
        sender = parents.find(store, given, whole, tokens.senders(store))
    if sender is not None and (event := parents.get(store, given, whole, sender, content=content)):
        return None, event
    try:
        if record := views.get(store, whole_id(given), content=content):
            return record, None
    except Unknown:
        pass
    if found := ids.find_event(store, given, source=source, sent_by=sent_by):
        parts = found.event_id, found.source, found.sent_by
        return None, parents.get(store, *parts, content=content)
    raise Unknown(
        f"{given[:64]!r} is neither a dispatch nor an event; see `fleet queue list` and --source."
    )


def dispatch_of(given: str) -> str:
    """The id of a dispatch, given by it or by the id of an event that has this one only.

    Raises Unknown, Ambiguous, and NotPossible for an event that has several.
    """
    record, event = find_record(given)
    if record:
        return str(record["dispatch_id"])
    members = event["members"] if event else []
    if len(members) != 1:
        named = [f"{one['dispatch_id']} ({one['agent']})" for one in members[:_NAMED_MAX]]
        more = ", and more" if len(members) > _NAMED_MAX else ""
        raise NotPossible(f"{given} has several dispatches, name one: {', '.join(named)}{more}.")
    return str(members[0]["dispatch_id"])
