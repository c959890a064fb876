"""Who can reach the API: this machine only, or others too."""

import ipaddress
import socket

from fleet.errors import ConfigError


def others_can_reach(host: str) -> bool:
    """True unless every address that `host` means is loopback. Raises ConfigError for no address.

    No host means every address.
    """
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise ConfigError(f"api.host: {host!r} is no address of this machine.") from error
    return not all(ipaddress.ip_address(str(address)).is_loopback for address in found)
