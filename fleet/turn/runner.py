"""What a runner is: the part of an agent that turns an event into an answer.

Built in are those of `tasks.runners`; others are found by entry point, group `fleet.runners`.
"""

from typing import Protocol

from fleet.ledger import Failure
from fleet.turn.turn import Turn


class Runner(Protocol):
    """Runs one turn."""

    def run(self, turn: Turn) -> str:
        """The agent's answer. Raises TurnFailed; any other exception fails the turn as it is."""
        ...


class TurnFailed(Exception):
    """A runner's own words about a failure: where, why, and whether to try again."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure
