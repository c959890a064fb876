"""What the client keeps in the store: its place in the gateway's events, and how they come in."""

from typing import Literal

from fleet.errors import Fenced
from fleet.ledger import bus
from fleet.store import Store, keys
from fleet.store.calls import UpstreamCall
from fleet.store.connection import reachable

Mode = Literal["ws", "poll"]

#: How long a client that says nothing is believed to be there.
MODE_MS = 15_000


class CursorStore:
    """Of one holder of the client's lock. All of it blocks and raises BrokerUnavailable."""

    def __init__(self, store: Store, digest: str, fence: int) -> None:
        self._store = store
        self._digest = digest
        self._fence = fence

    def cursor(self) -> str:
        """The id of the last event that was dealt with, or an empty string."""
        with reachable():
            kept = self._store.client.hget(keys.upstream(self._digest), "cursor")
        return str(kept or "")

    def move(self, cursor: str) -> None:
        """Everything up to `cursor` was dealt with. Raises Fenced when another client took over."""
        self._run("cursor", cursor)

    def record_mode(self, mode: Mode | None) -> None:
        """How events come in now; None: not at all. Raises Fenced."""
        self._run("mode", mode or "")

    def refused(self, event_id: str, reason: str, sender: str) -> None:
        """Count on the bus an event that can never be accepted."""
        bus.refused(self._store, event_id, reason, sender)

    def _run(self, verb: Literal["cursor", "mode"], value: str) -> None:
        call = UpstreamCall(
            verb=verb, digest=self._digest, fence=self._fence, value=value, mode_ms=MODE_MS
        )
        if not self._store.run(call):
            raise Fenced("Another upstream client has taken over.")
