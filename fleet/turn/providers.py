"""Breakers of the models, shared by the fleet and kept in the store.

A model that failed several times in a row is not called for a while. A model that refuses a key is
not called with that key. Then one call in the fleet tries it. While the store does not answer every
call is allowed: a breaker saves time and money, and must not cost a turn.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal

from fleet.broker.circuit import WAIT_MAX_S, WINDOW_S
from fleet.config.sections import BreakerConfig
from fleet.errors import BrokerUnavailable
from fleet.store import Store, keys
from fleet.store.calls import ProviderCall
from fleet.store.connection import reachable

logger = logging.getLogger(__name__)

#: An open breaker that nobody has tried for so long after its wait is one of a model, or of a key,
#: that is not used any more.
UNUSED_S = 3600.0

Outcome = Literal["ok", "failed", "limited", "denied"]


class Providers:
    """The breakers for one agent's calls."""

    def __init__(self, opened: Callable[[], Store], settings: BreakerConfig, agent: str) -> None:
        self._opened = opened
        self._settings = settings
        self._agent = agent

    def wait_s(self, model: str, key: str, call_s: float) -> float:
        """0.0 when a call of at most `call_s` seconds is allowed, otherwise the seconds to wait.

        `model` names the model and its address, `key` the key: an empty one is the agent's own.
        """
        call = ProviderCall(
            verb="ask",
            agent=self._agent,
            model=model,
            key=self._key(model, key),
            call_ms=int(call_s * 1000),
        )
        try:
            wait_ms = self._opened().run(call)
        except BrokerUnavailable as error:
            logger.warning("the breaker of %s is not checked: %s", model, error)
            return 0.0
        return int(wait_ms) / 1000

    def report(
        self,
        model: str,
        key: str,
        outcome: Outcome,
        reason: str = "",
        retry_after_s: float | None = None,
    ) -> float:
        """Report an outcome; `reason` is shown to operators and holds no content.

        Returns 0.0, or the seconds to wait after a failed trial, or as long as the provider asked.
        """
        first_s = self._settings.reset_timeout_s
        call = ProviderCall(
            verb="tell",
            agent=self._agent,
            model=model,
            key=self._key(model, key),
            outcome=outcome,
            reason=reason,
            retry_after_ms=int((retry_after_s or 0.0) * 1000),
            failures_max=self._settings.failure_threshold,
            window_ms=int(WINDOW_S * 1000),
            first_wait_ms=int(first_s * 1000),
            longest_wait_ms=int(max(first_s, WAIT_MAX_S) * 1000),
        )
        try:
            wait_ms = self._opened().run(call)
        except BrokerUnavailable as error:
            logger.warning("the outcome at %s is not reported to its breaker: %s", model, error)
            return retry_after_s or 0.0
        return int(wait_ms) / 1000

    def _key(self, model: str, key: str) -> str:
        return f"{model} key {key or f'of {self._agent}'}"


def is_open(breaker: Mapping[str, Any], now_ms: float) -> bool:
    """True for a breaker that stops calls, or has stopped them and waits for a trial."""
    return bool(breaker["wait"]) and now_ms - float(breaker["till"]) <= UNUSED_S * 1000


def states(store: Store) -> dict[str, dict[str, Any]]:
    """The breakers that are not closed, by name: the state, seconds left, reason and agents."""
    with reachable():
        found: Any = store.client.hgetall(keys.PROVIDERS)
        now_ms = store.clock.now_ms()
    open_ones = {}
    for name, text in sorted(found.items()):
        breaker = json.loads(text)
        if is_open(breaker, now_ms):
            left_s = max(0.0, (breaker["till"] - now_ms) / 1000)
            state = "open" if left_s else "half_open"
            open_ones[name] = {
                "state": state,
                "tried_in_s": round(left_s, 3),
                "reason": breaker.get("reason", ""),
                "agents": sorted(breaker.get("agents", ())),
            }
    return open_ones
