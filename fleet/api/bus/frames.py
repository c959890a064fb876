"""WebSocket frames that are made once and written to many connections.

ASGI has one message for each entry and client; here a batch of entries is one write. The server
offers a `FrameWriter` as an extension of the ASGI scope. Where there is none, ASGI messages do.
"""

import struct
from typing import Protocol, cast

from starlette.types import Scope

#: Names the writer among the extensions of an ASGI scope.
EXTENSION = "fleet.frames"
#: A final frame with text (RFC 6455, section 5.2). A server's frames are not masked.
_TEXT = 0x81
_SHORT_MAX, _MEDIUM_MAX = 125, 2**16 - 1
_MEDIUM, _LONG = 126, 127


class FrameWriter(Protocol):
    """The frames of one accepted connection, without extensions such as compression."""

    @property
    def ready(self) -> bool:
        """True when the connection is open and its buffer has room."""

    def write(self, frames: bytes) -> None:
        """Write whole frames, whether there is room or not."""

    async def drain(self) -> None:
        """Wait until the buffer has room. Raises the server's error for a lost connection."""


def writer_of(scope: Scope) -> FrameWriter | None:
    """The writer of a WebSocket; None when its server offers none."""
    return cast("FrameWriter | None", (scope.get("extensions") or {}).get(EXTENSION))


def text_frame(text: str) -> bytes:
    """A text message as one frame."""
    payload = text.encode()
    size = len(payload)
    if size <= _SHORT_MAX:
        return struct.pack("!BB", _TEXT, size) + payload
    if size <= _MEDIUM_MAX:
        return struct.pack("!BBH", _TEXT, _MEDIUM, size) + payload
    return struct.pack("!BBQ", _TEXT, _LONG, size) + payload
