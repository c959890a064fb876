"""The names by which a browser may reach a server that asks for no token.

A browser sends the requests of any page. A page of a public name that now points at this machine
(DNS rebinding) is of the same origin as the server, and may do all that the server lets everybody
do. Only the name in `Host` betrays it, which no page can choose.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

#: Requests by these change nothing.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def is_allowed(host: str, allowed: Collection[str]) -> bool:
    """True where the value of a `Host` header is an address, `localhost` or one of `allowed`."""
    try:
        name = (urlsplit(f"//{host.lower()}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost") or name in allowed:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_foreign_origin(origin: str | None, host: str) -> bool:
    """True where the `Origin` of a request is another one than its `Host`."""
    if origin is None:
        return False
    try:
        return urlsplit(origin.lower()).netloc != host.lower()
    except ValueError:
        return True
