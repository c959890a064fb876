"""Checks of the settings as a whole: names that refer to each other, limits that must fit."""

import re
from typing import TYPE_CHECKING

from fleet.config.agents import OWN_TOOLS
from fleet.config.deliveries import UPSTREAM
from fleet.config.sentinel_address import SCHEME, SentinelAddress
from fleet.config.tls import check_tls
from fleet.errors import ConfigError
from routing import InvalidRoute
from routing.nearest_name import question
from routing.rules import ALL_HANDS

if TYPE_CHECKING:
    from fleet.config.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_NAME_RULE = "a name is letters, digits, '-' and '_', 64 at most"
_SCHEMES = (
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "unix",
    "redis+socket",
    "sentinel",
    "amqp",
    "amqps",
)


def check(settings: "Settings") -> None:
    """Raise ConfigError for the first mistake; the sentence begins with its key."""
    if not settings.agents:
        raise ConfigError("agents: the fleet has no agent; add an [agents.NAME] table.")
    _check_agents(settings)
    for key, url in (("broker_url", settings.broker_url), ("store_url", settings.store_url)):
        if url is not None and url.partition("://")[0] not in _SCHEMES:
            raise ConfigError(f"fleet.{key}: the scheme must be one of {', '.join(_SCHEMES)}.")
        if url is not None and url.startswith(SCHEME):
            SentinelAddress.read(url, f"fleet.{key}")
        check_tls(f"fleet.{key}", url or "")
    _check_deliveries(settings)
    _check_callbacks(settings)
    for name in settings.lanes:
        if not _NAME.match(name):
            raise ConfigError(f"lanes.{shown(name)}: {_NAME_RULE}.")
    _check_tools(settings)
    try:
        settings.rules()
        settings.routing_chains()
    except InvalidRoute as error:
        raise ConfigError(str(error)) from error


def _check_agents(settings: "Settings") -> None:
    for name in settings.pools:
        if not _NAME.match(name):
            raise ConfigError(f"pools.{shown(name)}: {_NAME_RULE}.")
    for name, agent in settings.agents.items():
        if agent.pool is not None and agent.pool not in settings.pools:
            end = question(agent.pool, settings.pools)
            raise ConfigError(f"agents.{name}.pool: {shown(agent.pool)} is not a pool{end}")
        if not _NAME.match(name) or name == ALL_HANDS:
            raise ConfigError(f"agents.{shown(name)}: {_NAME_RULE}, not 'all'.")
        if settings.hard_limit_s(name) >= settings.visibility_timeout_s:
            key = f"agents.{name}.timeout_s" if agent.timeout_s else "fleet.dispatch_timeout_s"
            raise ConfigError(
                f"{key}: the hard limit ({settings.hard_limit_s(name):g} s) must stay below "
                f"fleet.visibility_timeout_s ({settings.visibility_timeout_s:g} s)."
            )


def _check_deliveries(settings: "Settings") -> None:
    for name, delivery in settings.deliveries.items():
        if not _NAME.match(name) or name == UPSTREAM:
            raise ConfigError(f"deliveries.{shown(name)}: {_NAME_RULE}, not '{UPSTREAM}'.")
        if delivery.agent is not None:
            _check_agent(settings, f"deliveries.{name}.agent", delivery.agent)
    receivers = {f"agents.{name}": agent.deliver for name, agent in settings.agents.items()}
    receivers |= {f"chains.{shown(name)}": one.deliver for name, one in settings.chains.items()}
    for key, names in receivers.items():
        for target in names:
            if target not in settings.deliveries:
                end = question(target, settings.deliveries)
                raise ConfigError(f"{key}.deliver: there is no [deliveries.{shown(target)}]{end}")
        if len(set(names)) < len(names):
            raise ConfigError(f"{key}.deliver: names a receiver twice.")


def _check_callbacks(settings: "Settings") -> None:
    callers = [name for name, agent in settings.agents.items() if agent.callback]
    everywhere = settings.api.host in ("0.0.0.0", "::")  # noqa: S104
    if callers and everywhere and not settings.api.public_url:
        raise ConfigError(
            f"api.public_url: agents.{callers[0]}.callback needs it, since no service can call "
            "the address in api.host."
        )


def _check_tools(settings: "Settings") -> None:
    if OWN_TOOLS in settings.tools:
        raise ConfigError(
            f"tools.{OWN_TOOLS}: the fleet's own tools have this name; choose another."
        )
    for name, agent in settings.agents.items():
        for tool in agent.tools:
            if tool != OWN_TOOLS and tool not in settings.tools:
                known = (OWN_TOOLS, *map(shown, settings.tools))
                end = question(tool, known)
                end = end if end != "." else f"; known are {', '.join(known)}."
                raise ConfigError(f"agents.{name}.tools: there is no [tools.{shown(tool)}]{end}")
        for other in agent.dispatch_to or ():
            _check_agent(settings, f"agents.{name}.dispatch_to", other)
    for name in settings.mcp.tools:
        if name not in settings.tools or not settings.tools[name].is_server:
            raise ConfigError(
                f"mcp.tools: [tools.{shown(name)}] is not an MCP server; list a set with `command` "
                "or `url`."
            )


def _check_agent(settings: "Settings", key: str, name: str) -> None:
    if name not in settings.agents:
        end = question(name, settings.agents)
        raise ConfigError(f"{key}: {shown(name)} is not an agent of this fleet{end}")


def shown(key: str) -> str:
    """A key from the file, safe to repeat in a sentence."""
    return "".join(char if char.isprintable() else "?" for char in key)
