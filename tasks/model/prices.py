"""Models whose calls a budget in dollars cannot count."""

from fleet.config.agents import AgentConfig
from tasks.model import echo
from tasks.model.litellm import load
from tasks.model.tiers import tiers_of

#: A price that the configuration gives LiteLLM itself.
_OWN_PRICE = "input_cost_per_token"


def unpriced(agent: AgentConfig) -> list[str]:
    """The models of an agent with a budget in dollars that have no price."""
    if agent.budget.usd_per_day is None or not agent.models:
        return []
    tiers = tiers_of(agent.model or "", agent.fallbacks, agent.params)
    found = [tier.model for tier in tiers if _OWN_PRICE not in tier.params]
    return list(dict.fromkeys(model for model in found if not _has_price(model)))


def fault(agent: str, model: str) -> str:
    """The sentence for operators."""
    return f"{agent}: {model} has no price, so its budget in dollars does not count its calls"


def _has_price(model: str) -> bool:
    if echo.serves(model):
        return True
    try:
        load().cost_per_token(model=model, prompt_tokens=1, completion_tokens=1)
    except Exception:  # noqa: BLE001 - an unknown price has no class of its own
        return False
    return True
