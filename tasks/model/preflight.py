"""The check that an agent's models can be called: their keys, and their addresses.

No request is sent to a provider, so none is paid for.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from fleet.config.agents import AgentConfig
from routing.nearest_name import nearest
from tasks.model import echo
from tasks.model.litellm import load
from tasks.model.tiers import tiers_of

CONNECT_TIMEOUT_S = 3.0
#: Ollama's own default, which LiteLLM uses as well.
_OLLAMA = "http://localhost:11434"


def obstacle(name: str, params: Mapping[str, Any], *, connect: bool = True) -> str | None:
    """A sentence why calls of model `name` with `params` would fail, or None.

    Without `connect` nothing is sent, and an address is taken as it is.
    """
    if echo.serves(name):
        return echo.fault_of(name)
    litellm = load()
    try:
        litellm.get_llm_provider(model=name, **_given(params))
    except litellm.exceptions.BadRequestError:
        return f"LiteLLM knows no provider of that name{_meant(name)}"
    if "api_key" not in params:
        wanted = litellm.validate_environment(model=name)["missing_keys"]
        # An address has a default; a key has none.
        missing = [variable for variable in wanted if not variable.endswith("_BASE")]
        if missing:
            return f"{' and '.join(missing)} is not in the environment"
    place = urlsplit(address(name, params) or "")
    if not place.hostname or not connect:
        return None
    port = place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection((place.hostname, port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return f"{place.hostname}:{port} cannot be reached ({error.strerror or error})"
    return None


def obstacles(agents: Mapping[str, AgentConfig], *, connect: bool = True) -> Iterator[str]:
    """A sentence for each model that an agent cannot call; the same model is checked once."""
    known: dict[tuple[str, str], str | None] = {}
    for name, agent in agents.items():
        if agent.runner != "llm":
            continue
        for tier in tiers_of(agent.model or "", agent.fallbacks, agent.params):
            key = (tier.model, repr(sorted(tier.params.items())))
            if key not in known:
                known[key] = obstacle(tier.model, tier.params, connect=connect)
            if known[key]:
                yield f"{name} cannot call {tier.model}: {known[key]}"


def address(name: str, params: Mapping[str, Any]) -> str | None:
    """The URL of calls of model `name`; None where only LiteLLM knows it."""
    if echo.serves(name):
        return None
    litellm = load()
    try:
        _, provider, _, base = litellm.get_llm_provider(model=name, **_given(params))
    except litellm.exceptions.BadRequestError:
        return None
    if provider.startswith("ollama"):
        base = base or os.environ.get("OLLAMA_API_BASE", _OLLAMA)
    found = params.get("api_base") or base
    return str(found) if found else None


def _meant(name: str) -> str:
    """A question with the provider that is like the one in `name`, or nothing."""
    prefix, slash, model = name.partition("/")
    known = [str(getattr(one, "value", one)) for one in load().provider_list]
    meant = nearest(prefix, (*known, echo.PROVIDER)) if slash else None
    return f"; did you mean {meant}/{model}?" if meant else ""


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: params.get(name) for name in ("api_base", "api_key")}
