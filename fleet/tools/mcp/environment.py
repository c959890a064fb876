"""The environment of a tool server's program."""

import os
import re
from collections.abc import Mapping

from pydantic import SecretStr

from fleet.system.process_tags import ProcessTag
from fleet.tools.mcp.keeper import KEPT_PREFIX

#: Names of variables that look like a secret; a tool does not get a provider's key.
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)


def environment(given: Mapping[str, SecretStr]) -> dict[str, str]:
    """The environment of a keeper: ours without the fleet's settings and secrets, plus `given`.

    It includes our process tags, by which the program's processes are found after its worker died.
    """
    own = {
        name: value
        for name, value in os.environ.items()
        if not (name.startswith("FLEET_") or _SECRET.search(name))
    }
    tags = {KEPT_PREFIX + tag: os.environ[tag] for tag in ProcessTag if tag in os.environ}
    return own | {name: value.get_secret_value() for name, value in given.items()} | tags
