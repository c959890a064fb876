"""Variables of the environment that look like ours, or like Celery's, and are other people's.

Kubernetes describes each Service to every pod beside it, as Docker did its links: for one named
`fleet` there is `FLEET_SERVICE_HOST`, `FLEET_PORT=tcp://10.0.0.1:80`, `FLEET_PORT_80_TCP_ADDR` ...
Celery, and its command line, read a broker, a backend and much else of whatever project set them.
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
#: What `celery` reads besides, to go by another broker, backend or configuration.
_OF_CELERY_TOO = ("BROKER_URL", "RESULT_BACKEND", "CONFIG_MODULE", "LOADER")


def is_of_service(variable: str, value: str) -> bool:
    """True for what describes a Service or a link, whose name begins as our variables do."""
    if _OF_SERVICE.match(variable):
        return True
    return bool(_PORT.match(variable) and _LINK.match(value))


def of_services() -> list[str]:
    """Which of them are set."""
    return sorted(name for name, value in os.environ.items() if is_of_service(name, value))


def of_celery() -> list[str]:
    """Which variables are set by which a Celery app, other than the fleet's, would go."""
    return sorted(
        name for name in os.environ if name.startswith("CELERY_") or name in _OF_CELERY_TOO
    )


def nearest(variable: str, known: Iterable[str]) -> str | None:
    """The name that was perhaps meant."""
    return next(iter(get_close_matches(variable, known, 1)), None)
