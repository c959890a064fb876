"""The socket on which the API listens.

A supervisor opens it and passes it on. So connections that come while the API starts again wait for
it, instead of being refused.
"""

import errno
import os
import socket

from fleet.errors import FleetError

#: Names the socket in the environment of the process that gets it.
LISTENER_FD = "FLEET_LISTENER_FD"
#: The send buffer of a connection in the kernel. Linux would grow it to megabytes, and hide a
#: client that reads nothing.
SEND_BUFFER_BYTES = 64 * 1024
BACKLOG = 2048
#: The kernel closes the connection of a peer that acknowledges nothing for this long.
PEER_TIMEOUT_MS = 30_000


def inherited() -> socket.socket | None:
    """The socket that the supervisor of this process passed on, once."""
    number = os.environ.pop(LISTENER_FD, None)
    return socket.socket(fileno=int(number)) if number else None


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises FleetError, with the remedy."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, proto, _, address = found[0]
        # The protocol must be named: asyncio turns Nagle's delay off only where it is.
        listener = socket.socket(family, kind, proto)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise FleetError(
                f"Port {port} on {host} is in use: end the program that listens there, "
                "or set api.port to another one."
            ) from error
        raise FleetError(
            f"Port {port} on {host} cannot be opened ({error.strerror}): "
            "change api.host or api.port."
        ) from error
    # Connections inherit these from the socket that accepts them.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_TIMEOUT_MS)
    return listener
