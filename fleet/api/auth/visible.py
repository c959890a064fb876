"""The dispatches that a caller may see: any other answers like one that is not there."""

from fleet.api.auth.access import ApiCaller
from fleet.ledger import ids
from fleet.ledger.operations import Unknown
from fleet.store import Store, keys
from fleet.store.connection import reachable


def not_there() -> Unknown:
    """The one answer for an id that is unknown, or not for this caller."""
    return Unknown(
        "There is no dispatch of this id that you may see; `GET /dispatches` lists those."
    )


def find_id(store: Store, caller: ApiCaller, given: str) -> str:
    """The id of the one dispatch that begins with `given`, among those that the caller may see.

    Raises Unknown, Ambiguous, BrokerUnavailable.
    """

    def sees(agent: str, sent_by: str) -> bool:
        own = caller.token is not None and sent_by == caller.sent_by
        return own or caller.rights.reads(agent)

    try:
        return ids.find_dispatch(store, given, sees)
    except Unknown:
        raise not_there() from None


def find_readable(store: Store, caller: ApiCaller, dispatch_id: str) -> tuple[str, str]:
    """The agent and the state of a dispatch. Raises Unknown, BrokerUnavailable."""
    with reachable():
        agent, state = store.client.hmget(keys.dispatch(dispatch_id), "agent", "state")
    if not (agent and state and caller.rights.reads(str(agent))):
        raise not_there()
    return str(agent), str(state)


def check_operable(store: Store, caller: ApiCaller, dispatch_id: str) -> None:
    """Raise Unknown unless the caller may read this dispatch, or sent its event."""
    with reachable():
        agent, sent_by = store.client.hmget(keys.dispatch(dispatch_id), "agent", "sent_by")
    own = caller.token is not None and sent_by == caller.sent_by
    if not agent or not (own or caller.rights.reads(str(agent))):
        raise not_there()
