"""What a tool server's program inherits of the process that starts it."""

import os
import re
from collections.abc import Mapping

from pydantic import SecretStr

from fleet.marks import Mark

#: What looks like a secret by its name: a provider's key is none of a tool's business.
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)


def environment(given: Mapping[str, SecretStr]) -> dict[str, str]:
    """The process's own without the fleet's settings and without secrets, and what is `given`.

    Marks stay: by them whatever the program starts is found when its worker has died.
    """
    marks = tuple(Mark)
    mine = {
        name: value
        for name, value in os.environ.items()
        if name in marks or not (name.startswith("FLEET_") or _SECRET.search(name))
    }
    return mine | {name: value.get_secret_value() for name, value in given.items()}
