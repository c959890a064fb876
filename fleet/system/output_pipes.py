"""Outputs of a process's parts: a pipe for each, so that each part has a log of its own.

A supervisor makes the pipes and reads them. The process that it starts gives each of its children
the end of one, in place of its own output. Pipes of parts that are added later come over a socket.
"""

import os
import socket
from collections.abc import Mapping

#: Names the pipes in a child's environment: `agent.a=7 agent.b=8`.
OUTPUTS_FD = "FLEET_OUTPUTS_FD"
#: Names the socket for later ones.
LATER_FD = "FLEET_OUTPUTS_FD_LATER"
_NAME_BYTES_MAX = 256


def outputs_text(outputs: Mapping[str, int]) -> str:
    """The variable's value for these names and writing ends."""
    return " ".join(f"{name}={fd}" for name, fd in outputs.items())


def receive_outputs() -> dict[str, int]:
    """The writing ends that this process was given, by name; our children inherit none of them.

    Empty without a supervisor, and when called again: the variable is removed from the environment.
    """
    pairs = (word.rpartition("=") for word in os.environ.pop(OUTPUTS_FD, "").split())
    found = {name: int(fd) for name, _, fd in pairs}
    for fd in found.values():
        os.set_inheritable(fd, False)
    return found


def receive_socket() -> socket.socket | None:
    """The socket for later pipes, once; None without a supervisor."""
    number = os.environ.pop(LATER_FD, None)
    if not number:
        return None
    found = socket.socket(fileno=int(number))
    found.setblocking(False)  # `recv_fds` heeds no flags
    return found


def send_later(to: socket.socket, name: str, pipe: int) -> None:
    """Send the writing end of a pipe for a part that is added. Raises OSError."""
    to.setblocking(False)  # `send_fds` heeds no flags
    socket.send_fds(to, [name.encode()], [pipe])


def receive_later(come_from: socket.socket) -> dict[str, int]:
    """The pipes that have come since the last call, by name; our children inherit none of them."""
    found: dict[str, int] = {}
    while True:
        try:
            name, fds, _, _ = socket.recv_fds(come_from, _NAME_BYTES_MAX, 1)
        except BlockingIOError:
            return found
        if not name:  # the supervisor has gone
            return found
        for fd in fds:
            os.set_inheritable(fd, False)
            found[name.decode()] = fd
