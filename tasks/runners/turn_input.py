"""A turn as a program or a model gets it: the prompt, and a program's environment."""

import os

from fleet.formats import hop_count
from fleet.ledger import Earlier
from fleet.system.process_tags import ProcessTag
from fleet.turn.turn import Turn

_STAGE = (
    "This is stage {stage} of {stages} ({name}) of the chain {chain!r}. You may end your answer "
    "with one line that decides how it goes on: APPROVE, REJECT: why (the chain stops), or "
    "REVISE: what to change (an earlier stage does its work again)."
)


def prompt(turn: Turn) -> str:
    """The event's text; in a chain also the earlier stages' answers and the ways to decide."""
    position = turn.chain_position
    if position is None:
        return turn.text
    stage = _STAGE.format(
        stage=position.stage,
        stages=position.stages,
        name=position.stage_name,
        chain=position.chain,
    )
    return "\n\n".join([turn.text, *map(_earlier, position.earlier), stage])


def agent_environment(turn: Turn) -> dict[str, str]:
    """The worker's own, without the fleet's variables (a broker's password); and the agent."""
    # The variables that tag a process find the program when its worker has died; none is secret.
    tags = tuple(ProcessTag)
    mine = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FLEET_") or name in tags
    }
    return {
        **mine,
        **turn.agent.env,
        "TURN_AGENT": turn.claim.agent,
        "TURN_INSTRUCTIONS": turn.agent.instructions,
    }


def turn_environment(turn: Turn) -> dict[str, str]:
    """The agent's environment and the turn, for a program that runs for this turn only."""
    return {
        **agent_environment(turn),
        "TURN_DISPATCH_ID": turn.claim.dispatch_id,
        "TURN_ATTEMPT": str(turn.claim.attempt),
        "TURN_FENCE": str(turn.fence),
        hop_count.VARIABLE: str(turn.event.hops),
        "TURN_SESSION": turn.event.session or "",
    }


def _earlier(end: Earlier) -> str:
    verdict = f", {end.verdict}" if end.verdict else ""
    again = f", round {end.round}" if end.round > 1 else ""
    heading = f"[stage {end.stage}, {end.agent}{again}: {end.state}{verdict}]"
    return f"{heading}\n{end.answer}".rstrip()
