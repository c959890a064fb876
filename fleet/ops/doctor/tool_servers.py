"""The check of the configured tool servers for `fleet doctor`: each is started."""

import asyncio
from collections.abc import Iterator, Mapping

from fleet.broker.audit import Finding
from fleet.config.settings import Settings
from fleet.config.tools import ToolsConfig
from fleet.tools.mcp.errors import ToolServerError
from fleet.tools.mcp.names import provider_names
from fleet.tools.mcp.server import ToolServer

#: The most tools named by a finding; there may be hundreds.
SHOWN = 10


def examine(settings: Settings) -> Iterator[Finding]:
    """The findings about all servers and their agents; all servers are queried at once."""
    servers = {name: tool for name, tool in settings.tools.items() if tool.is_server}
    left_out: dict[str, dict[str, str]] = {}
    found = asyncio.run(_listed(servers, left_out))
    for name, listed in found.items():
        yield from _findings(name, servers[name], listed)
        for tool, reason in list(left_out.get(name, {}).items())[:SHOWN]:
            fault = f"tools.{name}: the tool {tool!a} is left out: {reason}"
            yield Finding("warning", fault, "tell its makers; the other tools work")
    for agent, config in settings.agents.items():
        yield from _duplicates(
            agent, {tool_set: found[tool_set] for tool_set in config.tools if tool_set in found}
        )


async def _listed(
    servers: Mapping[str, ToolsConfig], left_out: dict[str, dict[str, str]]
) -> dict[str, list[str] | ToolServerError]:
    found = await asyncio.gather(*(_names(name, tool, left_out) for name, tool in servers.items()))
    return dict(zip(servers, found, strict=True))


async def _names(
    name: str, tool: ToolsConfig, left_out: dict[str, dict[str, str]]
) -> list[str] | ToolServerError:
    server = ToolServer(name, tool)
    try:
        listed = await server.list_tools()
        left_out[name] = server.left_out
        return sorted(tool_set.name for tool_set in listed)
    except ToolServerError as error:
        return error
    finally:
        await server.close()


def _findings(
    name: str, tool: ToolsConfig, listed: list[str] | ToolServerError
) -> Iterator[Finding]:
    if isinstance(listed, ToolServerError):
        remedy = (
            f"correct tools.{name}.command, or see what it says by `log_stderr = true`"
            if tool.command
            else f"start it, or correct tools.{name}.url and its headers"
        )
        yield Finding("warning", str(listed).rstrip("."), remedy)
        return
    if not listed:
        fault = f"tools.{name}: the server offers no tools"
        yield Finding("warning", fault, "correct what it is started with, or take it out")
        return
    for unknown in sorted(set(tool.classes) - set(listed)):
        known = ", ".join(listed[:SHOWN]) + (" ..." if len(listed) > SHOWN else "")
        fault = f"tools.{name}.classes.{unknown}: the server has no such tool"
        yield Finding("warning", fault, f"correct the name; it has {known}")


def _duplicates(agent: str, listed: Mapping[str, list[str] | ToolServerError]) -> Iterator[Finding]:
    """Names of tools that two servers of an agent share: each of its turns would fail."""
    seen: dict[str, str] = {}
    for name, tools in listed.items():
        for tool_name in provider_names(() if isinstance(tools, ToolServerError) else tools):
            other = seen.setdefault(tool_name, name)
            if other != name:
                fault = f"agents.{agent}.tools: {other} and {name} both have a tool {tool_name}"
                yield Finding("warning", fault, "take one of the two out: a model cannot tell them")
                return
