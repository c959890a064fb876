"""A tool server as the rest of the fleet sees it: what it offers, and calls of it."""

import logging
import time
from typing import Any

from mcp import types as mcp_types

from fleet.config.tools import ToolsConfig
from fleet.tools.mcp.connection import Connection, SessionForgotten
from fleet.tools.mcp.errors import ToolServerError

#: After a server could not be had, everybody is told so for this long without another try.
RETRY_DELAY_S = 1.0

# What these log repeats what was said to a server and by it, in tracebacks too.
for _name in ("mcp", "client", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


class ToolServer:
    """The server of one `[tools.NAME]`, connected at its first use and again after it died.

    For use in one event loop, by any number of tasks at once. Whatever goes wrong is a
    ToolServerError, whose sentence is fit for people and for models.
    """

    def __init__(self, name: str, config: ToolsConfig) -> None:
        self._name, self._config = name, config
        self._connection: Connection | None = None
        self._closed = False
        self._refused, self._not_before = "", 0.0

    async def list_tools(self) -> list[mcp_types.Tool]:
        """What the server offers; the same list until it says that this has changed."""
        try:
            return await (await self._connected()).tools()
        except SessionForgotten:
            return await (await self._connected()).tools()

    async def call_tool(
        self, name: str, arguments: dict[str, Any], *, timeout_s: float
    ) -> mcp_types.CallToolResult:
        """The result of a call, also one that says it is an error (`is_error`).

        It is never made twice, unless the server says that it did not look at it. After
        `timeout_s` it is cancelled, and a server that does not react is ended.
        """
        try:
            return await (await self._connected()).call(name, arguments, timeout_s)
        except SessionForgotten:
            return await (await self._connected()).call(name, arguments, timeout_s)

    async def close(self) -> None:
        """End the connection, and the program that was started for it."""
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
