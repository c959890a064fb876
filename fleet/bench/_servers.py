"""The measured servers, and client processes that are commanded by lines."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Self, cast

from fleet.bench._harness import Lab
from fleet.errors import FleetError

LOOPBACK = "127.0.0.1"
READY_S_MAX = 60.0

_CONFIG = """
fleet.broker_url = "{url}"
fleet.data_dir = "{folder}"
[agents.a]
runner = "python"
python = "a:b"
max_pending = 1000000
[bus]
max_length = 20000
"""


class Server:
    """A contender: a process that listens on its own port."""

    def __init__(self, name: str, port: int, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        self._process = subprocess.Popen(
            argv,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @classmethod
    def fleet(cls, where: Lab) -> Self:
        """`fleet api`, on the lab's broker."""
        config, port = where.folder / "fleet.toml", _free_port()
        config.write_text(_CONFIG.format(url=where.endpoint.url, folder=where.folder))
        env = {"FLEET_CONFIG": str(config), "FLEET_API__PORT": str(port)}
        return cls("fleet", port, [sys.executable, "-m", "fleet", "api"], env)

    @classmethod
    def peer(cls, name: str, module: ModuleType, where: Lab) -> Self:
        """A module, run with the broker's URL and the port."""
        port = _free_port()
        argv = [sys.executable, "-m", module.__name__, where.endpoint.url, str(port)]
        return cls(name, port, argv, {})

    def await_ready(self) -> None:
        """Wait until the server answers. Raises FleetError when it does not."""
        until = time.monotonic() + READY_S_MAX
        while self._process.poll() is None and time.monotonic() < until:
            try:
                socket.create_connection((LOOPBACK, self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise FleetError(f"The server {self.name!r} of the benchmark does not answer.")

    def cpu_s(self) -> float:
        """User and system time of the process so far; 0 without /proc."""
        stat = Path(f"/proc/{self._process.pid}/stat")
        if not stat.exists():
            return 0.0
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


class ClientProcess:
    """A module, run as a process that answers each JSON object on a line with another."""

    def __init__(self, module: ModuleType) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._in = cast("IO[str]", self._process.stdin)
        self._out = cast("IO[str]", self._process.stdout)

    def send(self, do: str, **what: Any) -> None:
        """Send a command, without waiting for its answer."""
        print(json.dumps({"do": do, **what}), file=self._in, flush=True)

    def receive(self) -> dict[str, Any]:
        """Wait for an answer. Raises FleetError when the process has ended."""
        line = self._out.readline()
        if not line:
            raise FleetError("A client of the benchmark ended; see standard error for its reason.")
        found: dict[str, Any] = json.loads(line)
        return found

    def request(self, do: str, **what: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.send(do, **what)
        return self.receive()

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.communicate()


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])
