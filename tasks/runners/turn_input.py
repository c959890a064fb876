"""A turn as a program gets it: the environment of the program."""

import os

from fleet.formats import hop_count
from fleet.system.process_tags import ProcessTag
from fleet.turn.turn import Turn


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
