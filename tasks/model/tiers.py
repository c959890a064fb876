"""The tiers of an agent: each model with the parameters that its calls get, and its breakers.

An address and a key belong to one provider. A tier of another one, or at another address, gets
neither of them from the agent's `params`, which are those of its first model.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from fleet.config.agents import ModelTier
from tasks.model.errors import provider_of
from tasks.model.litellm import OPENAI_KEY

#: Parameters that hold neither an address nor a key, so every provider may get them.
_PORTABLE = frozenset(
    {
        "allowed_openai_params",
        "drop_params",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "min_p",
        "modalities",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "repetition_penalty",
        "response_format",
        "seed",
        "stop",
        "temperature",
        "thinking",
        "tool_choice",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
    }
)
_ADDRESS = ("api_base", "base_url")
#: LiteLLM's names of OpenAI.
_OPENAI = ("openai", "text-completion-openai")
#: Enough to tell keys apart, too few to be of use to anybody else.
_DIGEST_CHARS = 8


@dataclass(frozen=True, slots=True)
class Tier:
    """A model with the parameters of its calls."""

    model: str
    params: Mapping[str, Any]
    trust_done: bool = False  #: see `fleet.config.agents.AgentConfig`

    @property
    def breaker(self) -> str:
        """The name of its breaker for failures: the model, at its address."""
        host = urlsplit(_address(self.params)).netloc.rpartition("@")[2]
        return f"{self.model}@{host}" if host else self.model

    @property
    def call(self) -> Mapping[str, Any]:
        """The parameters of a call: OpenAI's key from the environment is for OpenAI only."""
        key = os.environ.get(OPENAI_KEY)
        if (
            not key
            or self.params.get("api_key")
            or _provider(self.model, self.params) not in _OPENAI
        ):
            return self.params
        return {**self.params, "api_key": key}

    @property
    def key(self) -> str:
        """A digest of the key that it is called with; empty where only the provider knows it."""
        account = {
            name: value
            for name, value in self.params.items()
            if name not in _PORTABLE and name not in _ADDRESS
        }
        variable = f"{(_provider(self.model, self.params) or '').upper()}_API_KEY"
        if "api_key" not in account and os.environ.get(variable):
            account["api_key"] = os.environ[variable]
        if not account:
            return ""
        text = json.dumps(account, sort_keys=True, default=str)
        return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]


def tiers_of(
    model: str,
    fallbacks: Sequence[ModelTier | str],
    params: Mapping[str, Any],
    trust_done: bool = False,
) -> tuple[Tier, ...]:
    """`model` with `params`, then the fallbacks with what they may get of these and their own."""
    first = Tier(model, params, trust_done)
    return (first, *(_fallback(first, fallback) for fallback in fallbacks))


def _fallback(first: Tier, fallback: ModelTier | str) -> Tier:
    own = {} if isinstance(fallback, str) else fallback.params
    trust = None if isinstance(fallback, str) else fallback.trust_done
    name = fallback if isinstance(fallback, str) else fallback.model
    given = first.params
    provider = own.get("custom_llm_provider") or provider_of(name)
    other = provider not in (None, _provider(first.model, given))
    if other or _address(own) not in ("", _address(given)):
        given = {key: value for key, value in given.items() if key in _PORTABLE}
    return Tier(name, {**given, **own}, first.trust_done if trust is None else trust)


def _provider(model: str, params: Mapping[str, Any]) -> str | None:
    named = params.get("custom_llm_provider")
    return str(named) if named else provider_of(model)


def _address(params: Mapping[str, Any]) -> str:
    return str(next((params[name] for name in _ADDRESS if params.get(name)), ""))
