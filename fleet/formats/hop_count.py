"""The hop count of an event, passed to the program of a turn and on to the events it sends.

It ends a loop of agents whose programs call `fleet send`; see `routes.max_hops`.
"""

import os

#: In the environment of a turn's program: the hops of the turn's event.
VARIABLE = "TURN_HOPS"


def of_next() -> int | str | None:
    """The hops of an event that this process sends; None outside a turn.

    Text that is not a number is returned unchanged, for the event's parser to refuse.
    """
    hops = os.environ.get(VARIABLE)
    return int(hops) + 1 if hops and hops.isascii() and hops.isdecimal() else hops


def source_of(agent: str) -> str:
    """The `source` of every event made in an agent's name."""
    return f"agent:{agent}"
