"""The private Valkey of a data folder: started, or adopted where it already runs.

The server outlives the SIGKILL of its fleet on purpose: accepted events stay reachable, and the
next start adopts the running server. Two servers never share an append-only file, because each
holds the folder's lock by inheritance (see `fleet.broker.endpoint`).

Crash windows: a kill before the server runs frees the lock. A later kill within `start` leaves a
server that answers at its socket; the next start reads its pid there.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fleet.broker.endpoint import BrokerFolder, Endpoint, exists, read_endpoint
from fleet.broker.server import (
    KILL_TIMEOUT_S,
    POLL_S,
    TIMEOUT_S,
    Durability,
    ProgressTimeout,
    configure,
    launch,
    server_info,
)
from fleet.errors import BrokerUnavailable

__all__ = ["EmbeddedBroker", "Endpoint", "read_endpoint"]


class EmbeddedBroker:
    """The server of one data folder: append-only file, no eviction, private socket, password.

    `port` is an additional port on loopback, 0 for none. The first start makes a new password;
    every later start keeps it, because Flower holds it. Used by one thread at a time.
    """

    def __init__(self, data_dir: Path, durability: Durability = "always", port: int = 0) -> None:
        self._folder = BrokerFolder(data_dir)
        self._durability = durability
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._endpoint: Endpoint | None = None

    @property
    def pid(self) -> int | None:
        """The server's process, None before `start` and after `stop`."""
        return self._endpoint.pid if self._endpoint else None

    @property
    def started(self) -> bool:
        """True when this object started the server."""
        return self._endpoint is not None and self._process is not None

    @property
    def adopted(self) -> bool:
        """True when the server was already running, left behind by a fleet that was killed."""
        return self._endpoint is not None and self._process is None

    def alive(self) -> bool:
        """True while the server's process lives; costs microseconds."""
        if self._process is not None:
            return self._process.poll() is None
        return self._endpoint is not None and self._folder.is_held() and exists(self._endpoint.pid)

    def republish(self) -> None:
        """Publish the living server's endpoint again where the file was lost. Raises OSError."""
        if self._endpoint is not None and not self._folder.is_published:
            self._folder.publish(self._endpoint.pid)

    def start(self) -> Endpoint:
        """Return when the server answers with its data loaded; after its death, start it again.

        Raises BrokerUnavailable with the server's own reason and the remedy; then a server that
        this call started is dead.
        """
        if self._endpoint is not None and self.alive():
            return self._endpoint
        self._process = None
        with _in_one_sentence(self._folder.path):
            self._folder.create()
            self._endpoint = self._adopt_or_start()
        return self._endpoint

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the server, adopted or not: SIGTERM, then SIGKILL after `timeout_s`. Nothing is lost.

        Raises BrokerUnavailable when even SIGKILL does not end it.
        """
        if self._endpoint is None:
            return
        pid = self._endpoint.pid
        if not (self._end(signal.SIGTERM, timeout_s) or self._end(signal.SIGKILL, KILL_TIMEOUT_S)):
            raise BrokerUnavailable(
                f"The embedded broker (pid {pid}) does not end after SIGKILL: its disk may hang."
            )
        self._endpoint = self._process = None

    def _end(self, number: signal.Signals, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        if self.alive() and self._endpoint is not None:
            with suppress(ProcessLookupError):
                os.kill(self._endpoint.pid, number)
        while self.alive():
            if time.monotonic() > until:
                return False
            time.sleep(POLL_S)
        return True

    def _adopt_or_start(self) -> Endpoint:
        patience = ProgressTimeout()
        while True:
            lock = self._folder.acquire()
            if lock is not None:
                try:
                    self._folder.ensure_password(renew=self._endpoint is None)
                    self._process = launch(self._folder, self._port, self._durability, lock)
                    return self._folder.endpoint(self._process.pid)
                finally:
                    os.close(lock)
            if adopted := self._adopt(patience):
                return adopted
            time.sleep(POLL_S)

    def _adopt(self, patience: ProgressTimeout) -> Endpoint | None:
        """The living server of this folder, None while it does not answer yet."""
        pid = self._folder.published() or 0
        info: dict[str, Any] = {}
        with suppress(FileNotFoundError):  # another start has just taken the lock
            info = server_info(self._folder.endpoint(pid).url)
        if info and not info["loading"]:
            endpoint = self._folder.endpoint(info["process_id"])
            if configure(endpoint.url, self._durability):
                self._folder.publish(endpoint.pid)
                return endpoint
        if patience.left(info.get("loading_loaded_bytes", 0)):
            return None
        raise BrokerUnavailable(
            f"{self._folder.path} is held by a process{f' ({pid})' if pid else ''} that for "
            f"{TIMEOUT_S:g} s has not answered as its broker: end it and start again."
        )


@contextmanager
def _in_one_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BrokerUnavailable(
            f"The embedded broker cannot use {path} ({error.strerror or error}): make it writable "
            "and make room, or set fleet.data_dir to another folder."
        ) from error
