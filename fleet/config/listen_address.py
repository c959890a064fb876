"""The reach of the API's address: this machine only, or other machines too."""

import ipaddress
import socket

from fleet.errors import ConfigError


def others_can_reach(host: str) -> bool:
    """True unless all addresses of `host` are loopback. Raises ConfigError for an unknown host.

    No host means every address.
    """
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise ConfigError(f"api.host: {host!r} is not an address of this machine.") from error
    return not all(ipaddress.ip_address(str(address)).is_loopback for address in found)
