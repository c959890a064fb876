"""Variables with names like the fleet's, Celery's or Flower's, that somebody else has set.

Kubernetes describes each Service to every pod beside it, as Docker did its links. A Service named
`fleet` sets `FLEET_SERVICE_HOST`, `FLEET_PORT=tcp://10.0.0.1:80`, `FLEET_PORT_80_TCP_ADDR` ...
Other products are called Fleet, too. Celery and Flower read settings from variables that another
project may have set.
"""

import os
import re
from collections.abc import Container

PREFIX = "FLEET_"
#: Variables that are not settings: the file to read, and messages of a process to its children.
_NOT_SETTINGS = (
    "FLEET_CONFIG",
    "FLEET_REDIS_SERVER",
    "FLEET_LIFELINE_FD",
    "FLEET_LISTENER_FD",
    "FLEET_OUTPUTS_FD",
    "FLEET_SECRETS_FD",
    "FLEET_MARK_",
    "FLEET_TEST_",
)
#: The fleet elsewhere that the command line works on. Other products set such a URL, too: it counts
#: where the token is set beside it, be it empty.
URL, TOKEN = "FLEET_URL", "FLEET_TOKEN"
_OF_SERVICE = re.compile(
    r"FLEET_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)\Z"
)
_PORT = re.compile(r"FLEET_(\w+_)?PORT\Z")
_LINK = re.compile(r"(tcp|udp|sctp)://\S+:\d+\Z")
#: Further variables from which `celery` reads a broker, a backend or a configuration.
_OF_CELERY_TOO = ("BROKER_URL", "RESULT_BACKEND", "CONFIG_MODULE", "LOADER")
#: A password for Flower; it is kept, because without it somebody may get in.
_KEPT_OF_FLOWER = "FLOWER_BASIC_AUTH"


def is_of_service(variable: str, value: str) -> bool:
    """True for a variable that describes a Service or a link."""
    if _OF_SERVICE.match(variable):
        return True
    return bool(_PORT.match(variable) and _LINK.match(value))


def not_settings(keys: Container[str]) -> list[str]:
    """The variables `FLEET_...` that set none of `keys`, which are those of the settings."""
    return sorted(
        name
        for name in os.environ
        if name.startswith(PREFIX)
        and not name.startswith(_NOT_SETTINGS)
        and not (name in (URL, TOKEN) and TOKEN in os.environ)
        and name.removeprefix(PREFIX).partition("__")[0].lower() not in keys
    )


def elsewhere() -> tuple[str, str] | None:
    """The URL and the token of a fleet elsewhere, each perhaps empty; None where none is set."""
    url, token = os.environ.get(URL), os.environ.get(TOKEN)
    return None if url is None or (url and token is None) else (url, token or "")


def of_celery() -> list[str]:
    """The set variables that configure Celery apps other than the fleet's."""
    return sorted(
        name for name in os.environ if name.startswith("CELERY_") or name in _OF_CELERY_TOO
    )


def of_flower() -> list[str]:
    """The set variables that configure a Flower other than the fleet's."""
    return sorted(n for n in os.environ if n.startswith("FLOWER_") and n != _KEPT_OF_FLOWER)
