"""The error of a tool server."""

from typing import Any

from fleet.errors import FleetError
from fleet.formats.terminal_text import sanitize, sanitize_value


class ToolServerError(FleetError):
    """A tool server is unavailable, or a request to it failed; the sentence names the set of tools.

    `code` is the JSON-RPC error code of the server's answer, or of the transport's; None without an
    answer. `answered` is true where the server itself sent the error, and `data` is what it added.
    """

    def __init__(
        self, sentence: str, *, code: int | None = None, answered: bool = False, data: Any = None
    ) -> None:
        # Both may quote the server.
        super().__init__(sanitize(sentence))
        self.code, self.answered, self.data = code, answered, sanitize_value(data)
