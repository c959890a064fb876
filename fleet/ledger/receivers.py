"""The receivers of an outcome: written into the ledger when an event is accepted.

A change of the configuration is for later events, except a receiver's address and secret.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fleet.config.deliveries import UPSTREAM, DeliveryConfig
from routing import Plan

if TYPE_CHECKING:
    from fleet.config.settings import Settings

#: Receives every outcome, as `_announce.lua` has it.
_ALL = "*"


def of_agent(settings: "Settings", agent: str, plan: Plan) -> str:
    """The receivers of one dispatch, as `_announce.lua` wants them: name, ms, outcomes, ..."""
    known = settings.agents.get(agent)
    return _text(settings, known.deliver if known else (), plan)


def of_chain(settings: "Settings", chain: str, plan: Plan) -> str:
    """The receivers of a chain's end, in the same form."""
    return _text(settings, settings.chains[chain].deliver, plan)


def _text(settings: "Settings", names: Iterable[str], plan: Plan) -> str:
    found = [_one(name, settings.deliveries[name]) for name in names]
    upstream = settings.upstream
    if plan.upstream and upstream.outcomes:
        found.append(f"{UPSTREAM} {int(upstream.deadline_s * 1000)} {_ALL}")
    return " ".join(found)


def _one(name: str, delivery: DeliveryConfig) -> str:
    return f"{name} {int(delivery.deadline_s * 1000)} {','.join(delivery.on) or _ALL}"
