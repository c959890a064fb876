"""What a program that is an agent finds in its environment."""

import os

from fleet.formats import hop_count
from fleet.system.process_tags import ProcessTag
from fleet.turn.turn import Turn


def agent_environment(turn: Turn) -> dict[str, str]:
    """The worker's own, without what is the fleet's (a broker's password); which agent it is."""
    # What finds the program again when its worker has died is the worker's; it holds no secret.
    marks = tuple(ProcessTag)
    mine = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FLEET_") or name in marks
    }
    return {
        **mine,
        **turn.agent.env,
        "TURN_AGENT": turn.claim.agent,
        "TURN_INSTRUCTIONS": turn.agent.instructions,
    }


def turn_environment(turn: Turn) -> dict[str, str]:
    """And which turn it is, for a program that runs for this one only."""
    return {
        **agent_environment(turn),
        "TURN_DISPATCH_ID": turn.claim.dispatch_id,
        "TURN_ATTEMPT": str(turn.claim.attempt),
        hop_count.VARIABLE: str(turn.event.hops),
        "TURN_SESSION": turn.event.session or "",
    }
