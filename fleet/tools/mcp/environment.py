"""The environment of a tool server's program."""

from collections.abc import Mapping

from pydantic import SecretStr

from fleet.system.environments import of_program
from fleet.system.process_tags import kept_tags
from fleet.tools.mcp.keeper import KEPT_PREFIX


def environment(given: Mapping[str, SecretStr]) -> dict[str, str]:
    """The environment of a keeper: what every program needs, and `given`.

    It includes our process tags, by which the program's processes are found after its worker died.
    Raises KeyError where `given` names a variable that is not set.
    """
    own = of_program({name: value.get_secret_value() for name, value in given.items()})
    return own | {KEPT_PREFIX + tag: value for tag, value in kept_tags().items()}
