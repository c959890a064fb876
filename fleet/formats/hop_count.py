"""How far an event has come: told to the program of a turn, and by it to the events it sends.

So a loop of agents ends whose programs call `fleet send`; see `routes.max_hops`.
"""

import os

#: In the environment of a turn's program: the hops of the event that the turn is of.
VARIABLE = "TURN_HOPS"


def of_next() -> int | str | None:
    """The hops of an event that this process sends; None when it belongs to no turn.

    What is no number is answered as it is, for the event's parser to refuse.
    """
    told = os.environ.get(VARIABLE)
    return int(told) + 1 if told and told.isascii() and told.isdecimal() else told


def source_of(agent: str) -> str:
    """The `source` of every event that is made in an agent's name."""
    return f"agent:{agent}"
