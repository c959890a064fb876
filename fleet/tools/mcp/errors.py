"""What can go wrong with a server of tools."""

from fleet.errors import FleetError
from fleet.formats.terminal_text import sanitize


class ToolServerError(FleetError):
    """A server cannot be had, or a request to it failed; the sentence names the set of tools.

    `code` is the JSON-RPC error that the server itself answered with; None where it answered none.
    """

    def __init__(self, sentence: str, *, code: int | None = None) -> None:
        # It may hold a server's own words.
        super().__init__(sanitize(sentence))
        self.code = code
