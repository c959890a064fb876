"""A faulty TCP proxy between a host and its broker, on loopback.

It forwards bytes until a fault is requested. The faults are those of networks. `cut` closes
connections in order, `reset` resets them, and `hold` delays everything on open connections. `mute`
loses the server's answers after it has executed the commands.
"""

import asyncio
import socket
import struct
from contextlib import suppress

_CHUNK = 65_536
#: SO_LINGER with no time to linger: closing sends RST.
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """A proxy from its own loopback port to the socket `target`. Used in one event loop."""

    def __init__(self, target: str) -> None:
        self.port = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._muted = False

    async def start(self) -> None:
        """Listen, and set `port`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        self._flowing.set()
        await self.cut()

    async def cut(self) -> None:
        """Close every connection; new connections are accepted at once."""
        for writer in list(self._open):
            writer.close()

    async def reset(self) -> None:
        """Close every connection with RST."""
        for writer in list(self._open):
            with suppress(OSError):  # closed a moment ago
                wire = writer.get_extra_info("socket")
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def hold(self, seconds: float) -> None:
        """Delay all bytes for a while."""
        self._flowing.clear()
        await asyncio.sleep(seconds)
        self._flowing.set()

    async def mute(self, seconds: float) -> None:
        """Forward requests, discard answers, and finally cut."""
        self._muted = True
        await asyncio.sleep(seconds)
        await self.cut()
        self._muted = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._track(writer)
        try:
            await self._flowing.wait()
            back, forth = await asyncio.open_unix_connection(self._target)
        except OSError:  # the broker is away
            writer.close()
            self._open.discard(writer)
            return
        self._track(forth)
        try:
            await asyncio.gather(self._pump(reader, forth, False), self._pump(back, writer, True))
        finally:
            self._open -= {writer, forth}

    def _track(self, writer: asyncio.StreamWriter) -> None:
        wire = writer.get_extra_info("socket")
        if wire.family == socket.AF_INET:
            # Otherwise small packets wait for acknowledgements, 40 ms each.
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await self._flowing.wait()
                if answers and self._muted:
                    continue
                writer.write(chunk)
                await writer.drain()
        writer.close()
