"""An agent's configuration as an operator may see it: with every secret masked."""

import re
from collections.abc import Mapping
from typing import Any

from fleet.config.agents import AgentConfig
from fleet.formats.redaction import mask_url

MASK = "***"
#: Keys whose value is a secret, wherever they stand.
_SECRET_KEY = re.compile(
    r"key|token|secret|passw|credential|authorization|cookie|signature|private", re.IGNORECASE
)
#: Keys that only look so.
_HARMLESS = frozenset({"max_tokens", "max_completion_tokens", "tokens_per_day", "thinking_tokens"})
#: Tables whose values are all taken for secrets: anything may stand in them.
_SECRET_TABLES = frozenset({"env", "headers"})
_ASSIGNED = re.compile(rf"^(-*[\w.-]*(?:{_SECRET_KEY.pattern})[\w.-]*=).+", re.IGNORECASE | re.S)


def masked(agent: AgentConfig) -> dict[str, Any]:
    """The options that the configuration sets, by name."""
    options = agent.model_dump(mode="json", exclude_defaults=True)
    return {name: _masked(name, value) for name, value in sorted(options.items())}


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        hidden = name in _SECRET_TABLES
        return {key: MASK if hidden else _masked(str(key), one) for key, one in value.items()}
    if _SECRET_KEY.search(name) and name not in _HARMLESS and not isinstance(value, bool | None):
        return MASK
    if isinstance(value, list):
        return _masked_list(value) if name == "command" else [_masked(name, one) for one in value]
    return _masked_text(value) if isinstance(value, str) else value


def _masked_list(words: list[Any]) -> list[Any]:
    """A command line; what follows a word such as `--api-key` is masked, too."""
    shown: list[Any] = []
    for place, word in enumerate(words):
        before = str(words[place - 1]) if place else ""
        follows = before.startswith("-") and "=" not in before and _SECRET_KEY.search(before)
        shown.append(MASK if follows else _masked_text(str(word)))
    return shown


def _masked_text(text: str) -> str:
    return _ASSIGNED.sub(rf"\1{MASK}", mask_url(text))
