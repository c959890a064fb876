"""The name that was meant, for a person who mistyped an agent or a target.

Only here: the same errors answer callers over HTTP, who may not be allowed to know other names.
"""

from contextlib import suppress

from fleet.config.settings import load
from fleet.errors import FleetError
from fleet.ledger.operations import UnknownAgent
from routing import UnknownTarget
from routing.nearest_name import question


def sentence(error: Exception) -> str:
    """The sentence of an error, with the name that was meant where one is near."""
    names: tuple[str, ...] = ()
    with suppress(FleetError):
        if isinstance(error, UnknownTarget):
            names = load().rules().targets.names
        if isinstance(error, UnknownAgent):
            names = (*load().agents, *load().people())
    target = getattr(error, "target", "")
    return f"{str(error).removesuffix('.')}{question(target, names)}" if names else str(error)
