"""One attempt to post an outcome: to the address that was checked, without redirects."""

import http.client
import io
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

from fleet.config.deliveries import DeliveryConfig
from fleet.delivery.claims import AttemptResult
from fleet.formats import retry_after
from fleet.formats.public_address import ForbiddenAddress, resolve
from fleet.system.outgoing import UnusableVariable, authorities

#: What is read of an answer's body, to see whether it is whole; a longer one is not waited for.
BODY_BYTES_MAX = 64 * 1024
#: The longest deadline.
RETRY_AFTER_MAX_S = 86_400.0


def post(target: DeliveryConfig, body: bytes, headers: Mapping[str, str]) -> AttemptResult:
    """Post once; only a whole 2xx within `window_s` confirms."""
    place = urlsplit(target.webhook.get_secret_value() if target.webhook else "")
    host, tls = str(place.hostname), place.scheme == "https"
    port = place.port or (443 if tls else 80)
    try:
        addresses = resolve(host, port, allow_private=target.allow_private)
    except ForbiddenAddress as error:
        return AttemptResult(kind="failed", reason=str(error))
    except (OSError, UnicodeError):
        return AttemptResult(kind="failed", reason="its name is not known")
    try:
        trusted = authorities("https://") if tls else None
    except UnusableVariable as error:
        return AttemptResult(kind="failed", reason=str(error))
    path = (place.path or "/") + (f"?{place.query}" if place.query else "")
    connection = _Pinned(host, port, addresses, target.window_s, trusted)
    return _exchange(connection, path, body, {**headers, "host": place.netloc})


def _exchange(
    connection: "_Pinned", path: str, body: bytes, headers: Mapping[str, str]
) -> AttemptResult:
    doing = "connecting"
    try:
        connection.connect()
        with connection.limit():
            doing = "sending"
            connection.request("POST", path, body, dict(headers))
            doing = "its answer"
            response = connection.getresponse()
            read = len(response.read(BODY_BYTES_MAX))
            if response.length and read < BODY_BYTES_MAX:
                raise http.client.IncompleteRead(b"", response.length)
            status = response.status
        if connection.late.is_set():  # the headers ended because the line was cut
            raise TimeoutError
    # ValueError: raised by a TLS socket that was shut while it was read.
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = connection.late.is_set() or isinstance(error, TimeoutError)
        if late and doing == "its answer":
            return AttemptResult(
                kind="unverified", reason=f"no answer within {connection.window_s:g} s (window_s)"
            )
        why = "took too long" if late else f"failed ({type(error).__name__})"
        return AttemptResult(kind="failed", reason=f"{doing} {why}")
    finally:
        connection.close()
    return result_of(status, dict(response.headers.items()))


def result_of(status: int, headers: Mapping[str, str]) -> AttemptResult:
    """The result that a receiver's answer means."""
    if 200 <= status <= 299:
        return AttemptResult(kind="ack", reason=f"HTTP {status}")
    asked_s = retry_after.seconds(headers) if status in (429, 503) else None
    wait_s = min(asked_s or 0.0, RETRY_AFTER_MAX_S)
    return AttemptResult(kind="failed", reason=f"HTTP {status}", retry_after_s=wait_s)


class _WholeLines(io.BufferedReader):
    """Reads an answer's lines; the end of the connection ends none, and so no header."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and (size is None or size < 0 or len(line) < size):
            raise http.client.IncompleteRead(line)
        return line


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = _WholeLines(self.fp.detach())

    def begin(self) -> None:
        """Read the head of the answer; what a receiver says before it (1xx) is none."""
        super().begin()
        while 100 <= self.status < 200 and self.status != http.client.SWITCHING_PROTOCOLS:
            self.headers = None  # type: ignore[assignment]  # nothing is read of it yet
            super().begin()


class _Pinned(http.client.HTTPConnection):
    """Connects to addresses that were resolved before; the name is for TLS and the header."""

    response_class = _Answer

    def __init__(
        self,
        host: str,
        port: int,
        addresses: list[str],
        window_s: float,
        tls: SSLContext | None,
    ) -> None:
        super().__init__(host, port)
        self.window_s = window_s
        self.late = threading.Event()
        self._addresses, self._tls = addresses, tls

    def connect(self) -> None:
        """Open the socket; every wait on it has the window as its limit."""
        plain = self._connected()
        try:
            plain.settimeout(self.window_s)
            self.sock = (
                self._tls.wrap_socket(plain, server_hostname=self.host) if self._tls else plain
            )
        except BaseException:
            plain.close()
            raise

    def _connected(self) -> socket.socket:
        """A socket to the first address that answers; all together have one window."""
        deadline = time.monotonic() + self.window_s
        for number, address in enumerate(self._addresses, start=1):
            left_s = max(deadline - time.monotonic(), 0.01)
            try:
                return socket.create_connection((address, self.port), left_s)
            except OSError:
                if number == len(self._addresses):
                    raise
        raise OSError("no address")

    def limit(self) -> "_Limit":
        """The window for the whole exchange: single bytes now and then do not lengthen it."""
        return _Limit(self)


class _Limit:
    def __init__(self, connection: _Pinned) -> None:
        self._connection = connection
        self._timer = threading.Timer(connection.window_s, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        self._connection.late.set()
        with suppress(OSError, ValueError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
