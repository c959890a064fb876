"""Runner `python`: any importable callable is an agent.

def answer(turn):            # agents.NAME.python = "my_agents:answer"
    return "you said " + turn.text
"""

from fleet.turn import Turn
from tasks.imports import imported


class PythonRunner:
    """Calls the configured callable with the turn; what it returns is the answer."""

    def run(self, turn: Turn) -> str:
        """The callable's answer; None is an empty one, and what is no string becomes one.

        Raises TurnFailed when the callable cannot be imported; what it raises itself passes.
        """
        answer = imported(str(turn.agent.python))(turn)
        return "" if answer is None else str(answer)
