"""A tool server as the rest of the fleet sees it: its tools, and calls of them."""

import logging
import time
from typing import Any

from mcp import types as mcp_types

from fleet.config.tools import ToolsConfig
from fleet.tools.mcp.connection import Connection, SessionForgotten
from fleet.tools.mcp.errors import ToolServerError

#: After a failed connection every caller gets the same error for this long.
RETRY_DELAY_S = 1.0

# These loggers would write the content of requests and answers, in tracebacks too.
for _name in ("mcp", "client", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


class ToolServer:
    """The server of one `[tools.NAME]`, connected at its first use and again after it died.

    Used in one event loop, by any number of tasks. Every failure is a ToolServerError, with a
    sentence for people and for models.
    """

    def __init__(self, name: str, config: ToolsConfig) -> None:
        self._name, self._config = name, config
        self._connection: Connection | None = None
        self._closed = False
        self._refused, self._not_before = "", 0.0

    async def list_tools(self) -> list[mcp_types.Tool]:
        """The server's tools; the same list until the server announces a change."""
        try:
            return await (await self._connected()).tools()
        except SessionForgotten:
            return await (await self._connected()).tools()

    @property
    def left_out(self) -> dict[str, str]:
        """The tools of the newest list that cannot be used, with the reasons."""
        return self._connection.left_out if self._connection is not None else {}

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any],
        *,
        timeout_s: float,
        reads: bool = False,
    ) -> mcp_types.CallToolResult:
        """Call a tool; a result may report an error of the tool (`is_error`).

        Where the server has lost the session, the call is repeated once in a new one: if the server
        says that it ignored it, or if the tool only `reads`, by this argument or by its own hints.
        No other call is repeated. After `timeout_s` the call is cancelled, and a server that hangs
        is stopped.
        """
        connection = await self._connected()
        try:
            return await connection.call(name, arguments, timeout_s)
        except SessionForgotten as lost:
            if lost.handled and not (reads or connection.is_repeatable(name)):
                raise
            return await (await self._connected()).call(name, arguments, timeout_s)

    async def close(self) -> None:
        """Close the connection, and stop its program."""
        self._closed = True
        if self._connection is not None:
            await self._connection.close()

    async def _connected(self) -> Connection:
        while (last := self._connection) is not None and last.ending:
            await last.ended.wait()
            if self._connection is last:
                self._connection = None
        if self._closed:
            raise ToolServerError(f"tools.{self._name}: this process is stopping.")
        if self._connection is None:
            if time.monotonic() < self._not_before:
                raise ToolServerError(self._refused)
            self._connection = Connection(self._name, self._config)
        connection = self._connection
        try:
            await connection.opened()
        except ToolServerError as error:
            self._refused, self._not_before = str(error), time.monotonic() + RETRY_DELAY_S
            raise
        return connection
