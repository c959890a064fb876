"""The error of a tool server."""

from fleet.errors import FleetError
from fleet.formats.terminal_text import sanitize


class ToolServerError(FleetError):
    """A tool server is unavailable, or a request to it failed; the sentence names the set of tools.

    `code` is the JSON-RPC error code of the server's answer; None without such an answer.
    """

    def __init__(self, sentence: str, *, code: int | None = None) -> None:
        # The sentence may quote the server.
        super().__init__(sanitize(sentence))
        self.code = code
