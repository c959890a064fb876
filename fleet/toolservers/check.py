"""Whether the tool servers of a configuration can be had, for `fleet doctor`: each is started."""

import asyncio
from collections.abc import Iterator, Mapping

from fleet.broker.audit import Finding
from fleet.toolservers.errors import ToolServerError
from fleet.toolservers.section import Tool
from fleet.toolservers.server import ToolServer

#: Tools that a finding names; there may be hundreds.
SHOWN = 10


def examine(tools: Mapping[str, Tool]) -> Iterator[Finding]:
    """What stands between each server and the agents that are to use it; all are asked at once."""
    servers = {name: tool for name, tool in tools.items() if tool.is_server}
    for name, offered in asyncio.run(_offered(servers)).items():
        yield from _findings(name, servers[name], offered)


async def _offered(servers: Mapping[str, Tool]) -> dict[str, list[str] | ToolServerError]:
    found = await asyncio.gather(*(_names(name, tool) for name, tool in servers.items()))
    return dict(zip(servers, found, strict=True))


async def _names(name: str, tool: Tool) -> list[str] | ToolServerError:
    server = ToolServer(name, tool)
    try:
        return sorted(one.name for one in await server.list_tools())
    except ToolServerError as error:
        return error
    finally:
        await server.close()


def _findings(name: str, tool: Tool, offered: list[str] | ToolServerError) -> Iterator[Finding]:
    if isinstance(offered, ToolServerError):
        remedy = (
            f"correct tools.{name}.command, or see what it says by `log_stderr = true`"
            if tool.command
            else f"start it, or correct tools.{name}.url and its headers"
        )
        yield Finding("warning", str(offered).rstrip("."), remedy)
        return
    if not offered:
        what = f"tools.{name}: the server offers no tools"
        yield Finding("warning", what, "correct what it is started with, or take it out")
        return
    for unknown in sorted(set(tool.classes) - set(offered)):
        known = ", ".join(offered[:SHOWN]) + (" ..." if len(offered) > SHOWN else "")
        what = f"tools.{name}.classes.{unknown}: the server has no such tool"
        yield Finding("warning", what, f"correct the name; it has {known}")
