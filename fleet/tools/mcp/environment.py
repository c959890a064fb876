"""What a tool server's program inherits of the process that starts it."""

import os
import re
from collections.abc import Mapping

from pydantic import SecretStr

from fleet.system.process_tags import ProcessTag
from fleet.tools.mcp.keeper import KEPT_PREFIX

#: What looks like a secret by its name: a provider's key is none of a tool's business.
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)


def environment(given: Mapping[str, SecretStr]) -> dict[str, str]:
    """For a keeper: our own without the fleet's settings and without secrets, and what is `given`.

    By our marks whatever the program starts is found when its worker has died.
    """
    mine = {
        name: value
        for name, value in os.environ.items()
        if not (name.startswith("FLEET_") or _SECRET.search(name))
    }
    marks = {KEPT_PREFIX + mark: os.environ[mark] for mark in ProcessTag if mark in os.environ}
    return mine | {name: value.get_secret_value() for name, value in given.items()} | marks
