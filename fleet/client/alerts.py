"""The alerts of a fleet elsewhere."""

from typing import Any

from fleet.client.connection import ApiConnection, path_of

Record = dict[str, Any]


class FleetAlerts:
    """List, silence and acknowledge alerts, within the scopes of the token."""

    def __init__(self, connection: ApiConnection) -> None:
        self._connection = connection

    def find(self, *, past: bool = False) -> Record:
        """The open alerts and the silences; with `past` those that are over, too."""
        found: Record = self._connection.get("/alerts", {"all": "1"} if past else {})
        return found

    def silence(self, which: str, for_s: float, by: str = "", comment: str = "") -> Record:
        """Send an alert, or all of a name, to nobody for a while."""
        return self._mark(which, "silence", for_s=for_s, by=by, comment=comment)

    def unsilence(self, which: str) -> Record:
        """End a silence."""
        return self._mark(which, "unsilence")

    def acknowledge(self, which: str, by: str = "", comment: str = "") -> Record:
        """Say that somebody knows of an open alert."""
        return self._mark(which, "ack", by=by, comment=comment)

    def _mark(self, which: str, verb: str, **body: float | str) -> Record:
        given = {name: value for name, value in body.items() if value != ""}
        found: Record = self._connection.call(
            "POST", path_of("alerts", which, verb), body=given or None
        )
        return found
