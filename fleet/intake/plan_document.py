"""The plan of an event as a document: the agents that it reaches, and why."""

from typing import Any

from fleet.config.settings import Settings
from routing import Plan, explain
from routing.chains import Stage


def plan_document(settings: Settings, plan: Plan) -> dict[str, Any]:
    """The agents with the reasons of each; of a chain its stages."""
    why = explain(plan, settings.rules())
    stages = settings.chain(plan.chain).stages if plan.chain else ()
    return {
        "agents": list(plan.agents),
        "chain": plan.chain,
        "reason": plan.reason,
        "why": [{"agent": agent, "because": reasons} for agent, reasons in why.items()],
        "stages": [_stage(stage) for stage in stages],
    }


def _stage(stage: Stage) -> dict[str, Any]:
    members = [] if stage.person else list(stage.members)
    return {"name": stage.name, "agents": members, "quorum": stage.quorum}
