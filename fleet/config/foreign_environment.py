"""Variables of the environment that have names like the fleet's or Celery's, from another source.

Kubernetes describes each Service to every pod beside it, as Docker did its links. A Service named
`fleet` sets `FLEET_SERVICE_HOST`, `FLEET_PORT=tcp://10.0.0.1:80`, `FLEET_PORT_80_TCP_ADDR` ...
Celery reads broker, backend and more from variables that another project may have set.
"""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches

_OF_SERVICE = re.compile(
    r"FLEET_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)\Z"
)
_PORT = re.compile(r"FLEET_(\w+_)?PORT\Z")
_LINK = re.compile(r"(tcp|udp|sctp)://\S+:\d+\Z")
#: Further variables from which `celery` reads a broker, a backend or a configuration.
_OF_CELERY_TOO = ("BROKER_URL", "RESULT_BACKEND", "CONFIG_MODULE", "LOADER")


def is_of_service(variable: str, value: str) -> bool:
    """True for a variable that describes a Service or a link."""
    if _OF_SERVICE.match(variable):
        return True
    return bool(_PORT.match(variable) and _LINK.match(value))


def of_services() -> list[str]:
    """The variables of Services that are set."""
    return sorted(name for name, value in os.environ.items() if is_of_service(name, value))


def of_celery() -> list[str]:
    """The set variables that configure Celery apps other than the fleet's."""
    return sorted(
        name for name in os.environ if name.startswith("CELERY_") or name in _OF_CELERY_TOO
    )


def nearest(variable: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `variable`."""
    return next(iter(get_close_matches(variable, known, 1)), None)
