"""The client's state in the store: its place in the gateway's events, and its mode."""

from typing import Literal

from fleet.errors import Fenced
from fleet.ledger import bus
from fleet.store import Store, keys
from fleet.store.calls import UpstreamCall
from fleet.store.connection import reachable

Mode = Literal["ws", "poll"]

#: How long a recorded mode is valid without renewal.
MODE_MS = 15_000


class CursorStore:
    """The state under one holder of the client's lock. Calls block and raise BrokerUnavailable."""

    def __init__(self, store: Store, digest: str, fence: int) -> None:
        self._store = store
        self._digest = digest
        self._fence = fence

    def cursor(self) -> str:
        """The id of the last event that was handled, or an empty string."""
        with reachable():
            stored = self._store.client.hget(keys.upstream(self._digest), "cursor")
        return str(stored or "")

    def move(self, cursor: str) -> None:
        """Record that all events up to `cursor` were handled. Raises Fenced."""
        self._run("cursor", cursor)

    def record_mode(self, mode: Mode | None) -> None:
        """Record the way events come in; None: not at all. Raises Fenced."""
        self._run("mode", mode or "")

    def refused(self, event_id: str, reason: str, sender: str) -> None:
        """Report on the bus an event that can never be accepted."""
        bus.refused(self._store, event_id, reason, sender)

    def _run(self, verb: Literal["cursor", "mode"], value: str) -> None:
        call = UpstreamCall(
            verb=verb, digest=self._digest, fence=self._fence, value=value, mode_ms=MODE_MS
        )
        if not self._store.run(call):
            raise Fenced("Another upstream client has taken over.")
