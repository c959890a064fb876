"""The files of an embedded broker: who holds the folder, under which password, on which port.

Needs no Redis client, so that a command learns within a millisecond that no fleet is running.

The lock is the truth about life: the server inherits it, so it is held exactly while a server of
this folder lives, also when the fleet that started it was killed. `endpoint.json` says where that
server answers; its pid is 0 from before the server is started until it has answered.
"""

import fcntl
import json
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fleet import files
from fleet.errors import BrokerUnavailable

_PASSWORD = re.compile(r"[A-Za-z0-9_-]{43}")
#: Valkey says so at its start; enough of the log's end to hold it.
_PORT_IN_LOG = re.compile(rb"\bport=(\d+)")
_LOG_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running embedded broker."""

    pid: int
    port: int
    #: Holds the password, hence kept out of logs and tracebacks.
    url: str = field(repr=False)


def read_endpoint(data_dir: Path) -> Endpoint | None:
    """The embedded broker that runs on `data_dir`, or None.

    A broker that still starts, or still loads its data, counts as not running. Raises
    BrokerUnavailable when the folder belongs to another user, or a file of it is damaged.
    """
    folder = BrokerFolder(data_dir)
    try:
        pid, port = folder.published()
        if not port and folder.is_held():
            raise BrokerUnavailable(
                f"The embedded broker of {data_dir} lives, but nothing says where: it has just "
                "been started, or endpoint.json was damaged; `fleet up` finds it."
            )
        if not pid or not folder.is_held() or not exists(pid):
            return None
        return folder.endpoint(pid, port)
    except OSError as error:
        raise BrokerUnavailable(
            f"{error.filename} cannot be read: {error.strerror}; "
            "use the fleet as the user who started it."
        ) from error


class BrokerFolder:
    """`data_dir/broker`, private to one user. Every method may raise OSError."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir.absolute() / "broker"
        self.log = self.path / "server.log"
        self._lock = self.path / "lock"
        self._endpoint = self.path / "endpoint.json"
        self._password = self.path / "password"

    def create(self) -> None:
        """Make the folder, closed to other users, where it is missing."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)

    def take(self) -> int | None:
        """The lock as an open file, or None while a server lives or another start is under way."""
        held = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            return None
        except OSError:
            os.close(held)
            raise
        return held

    def is_held(self) -> bool:
        """True while a server lives.

        For an instant the probe's own shared lock can turn a `take` down: starts must retry.
        """
        try:
            probe = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(probe)
        return False

    def ensure_password(self) -> None:
        """Make the password once for the life of the folder. Only for the holder of the lock."""
        with suppress(FileNotFoundError):
            if self._password_read() is not None:
                return
            # Nobody needs the old one: no server lives, and the data is not locked with it.
            files.set_aside(self._password, "it holds no password")
        # Synced: an empty file after a power loss would be a server without a password.
        files.replace(self._password, secrets.token_urlsafe(32), sync=True)

    def password(self) -> str:
        """The password of this folder's servers. Raises BrokerUnavailable where it is damaged."""
        found = self._password_read()
        if found is None:
            raise BrokerUnavailable(
                f"{self._password} is damaged: end the server that was started with it (its log is "
                f"{self.log}), which loses nothing, and start again."
            )
        return found

    def _password_read(self) -> str | None:
        text = self._password.read_bytes().decode("ascii", errors="replace")
        return text if _PASSWORD.fullmatch(text) else None

    def endpoint(self, pid: int, port: int) -> Endpoint:
        """The endpoint of a server of this folder."""
        return Endpoint(pid, port, f"redis://:{self.password()}@127.0.0.1:{port}/0")

    def publish(self, pid: int, port: int) -> None:
        """Tell everybody where the server answers; pid 0 while it does not answer yet."""
        files.replace(self._endpoint, json.dumps({"pid": pid, "port": port}))

    def published(self) -> tuple[int, int]:
        """The pid and the port of the last server, alive or not; zeros when there was none."""
        try:
            told = files.read_json(self._endpoint)
            return (int(told["pid"]), int(told["port"])) if told else (0, 0)
        except NotADirectoryError:
            return 0, 0
        except (ValueError, KeyError, TypeError):
            files.set_aside(self._endpoint, "it names no port")
            return 0, 0

    @property
    def is_published(self) -> bool:
        """False when `endpoint.json` is gone, as one that was damaged."""
        return self._endpoint.exists()

    def port_in_log(self) -> int:
        """The port of the last server by its own words; 0 where it said none."""
        with suppress(FileNotFoundError), self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _LOG_TAIL_BYTES))
            said = _PORT_IN_LOG.findall(log.read())
            return int(said[-1]) if said else 0
        return 0


def exists(pid: int) -> bool:
    """True while a process of this number exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
