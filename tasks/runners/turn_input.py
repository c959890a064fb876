"""A turn as a program gets it: the environment of the program."""

import os

from fleet.formats import hop_count
from fleet.ledger import Failure, FailureStage
from fleet.system.environments import of_program
from fleet.system.process_tags import ProcessTag
from fleet.turn.turn import Turn, TurnFailed


def agent_environment(turn: Turn) -> dict[str, str]:
    """The variables that every program needs, those of the agent's `env`, and the agent.

    Raises TurnFailed, not retryable, where `env` names a variable that the worker does not have.
    """
    try:
        own = of_program(turn.agent.env)
    except KeyError as error:
        reason = f"agents.{turn.claim.agent}.env: the worker has no variable {error.args[0]}"
        failure = Failure(
            stage=FailureStage.TOOL, reason=reason, retryable=False, kind="NoVariable"
        )
        raise TurnFailed(failure) from error
    return {
        **own,
        # They find the program when its worker has died.
        **{tag: os.environ[tag] for tag in ProcessTag if tag in os.environ},
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
