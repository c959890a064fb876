"""The files of an embedded broker: its lock, its process, its password, its socket.

Needs no Redis client, so that a command knows within a millisecond that no fleet is running.

The server inherits the lock, so it is held exactly while a server of this folder lives, even one
whose fleet was killed. `endpoint.json` names the server's process; its pid is 0 from before the
server is started until it has answered.

The server listens on a socket inside the folder, which no other user may enter. While it is down
nobody else can listen there, so a client never sends its password to another program. Any user may
listen on a free port.
"""

import errno
import json
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import quote

from fleet.errors import BrokerUnavailable
from fleet.system import file_lock, files

_PASSWORD = re.compile(r"[A-Za-z0-9_-]{43}")
#: A relative name: the server runs in the folder.
SOCKET = "server.sock"
#: The longest address of a socket: 107 bytes on Linux, 103 on macOS.
_SOCKET_BYTES_MAX = 103
#: Open folders of this process, as paths.
_OPENED = Path("/proc/self/fd")
#: Not quoted in a URL: kombu and redis-py read both forms, Flower only this.
_PLAIN = "/ !$&'()*+,:@[]~"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running embedded broker."""

    pid: int
    #: The path of its socket for this process and its forks; see `BrokerFolder.socket`.
    socket: str
    #: As redis-py reads it. Contains the password: kept out of logs and tracebacks.
    url: str = field(repr=False)


def read_endpoint(data_dir: Path) -> Endpoint | None:
    """The embedded broker that runs on `data_dir`, or None.

    A broker that still starts, or still loads its data, counts as not running. Raises
    BrokerUnavailable when the folder belongs to another user, or a file of it is damaged.
    """
    folder = BrokerFolder(data_dir)
    try:
        pid = folder.published()
        if pid is None and folder.is_held():
            raise BrokerUnavailable(
                f"The embedded broker of {data_dir} lives, but nothing says as which process: it "
                "has just been started, or endpoint.json was damaged; `fleet up` finds it."
            )
        if not pid or not folder.is_held() or not exists(pid):
            return None
        return folder.endpoint(pid)
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
        if self.path.stat().st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user", str(self.path))
        self.path.chmod(0o700)

    def acquire(self) -> int | None:
        """The lock as an open file, or None while a server lives or another start is under way."""
        return file_lock.acquire(self._lock)

    def is_held(self) -> bool:
        """True while a server lives; for an instant this can refuse an `acquire`."""
        return file_lock.is_held(self._lock)

    def ensure_password(self, *, renew: bool) -> None:
        """Make a password where there is none, and with `renew` always. For the lock's holder."""
        with suppress(FileNotFoundError):
            if self._password_read() is None:
                # Nobody needs the old one: no server lives, and the data is not locked with it.
                files.set_aside(self._password, "it holds no password")
            elif not renew:
                return
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

    def socket(self) -> str:
        """A path to the server's socket that is short enough to connect to.

        Below a deep folder it leads through the folder held open, so only this process and its
        forks can use it. Raises BrokerUnavailable where the system has no such path.
        """
        plain = self.path / SOCKET
        if len(os.fsencode(plain)) <= _SOCKET_BYTES_MAX:
            return str(plain)
        if not _OPENED.is_dir():
            raise BrokerUnavailable(
                f"The path {plain} is longer than a socket's may be ({_SOCKET_BYTES_MAX} bytes): "
                "set fleet.data_dir to another folder."
            )
        status = self.path.stat()
        return str(_OPENED / str(_opened(self.path, status.st_dev, status.st_ino)) / SOCKET)

    def endpoint(self, pid: int) -> Endpoint:
        """The endpoint of a server of this folder."""
        socket = self.socket()
        url = f"unix://:{self.password()}@{quote(socket, safe=_PLAIN)}?db=0"
        return Endpoint(pid, socket, url)

    def publish(self, pid: int) -> None:
        """Write the server's process to `endpoint.json`; pid 0 while it does not answer yet."""
        files.replace(self._endpoint, json.dumps({"pid": pid}))

    def published(self) -> int | None:
        """The pid of the last server, alive or not; None where it is not known."""
        try:
            found = files.read_json(self._endpoint)
            return int(found["pid"]) if found else None
        except NotADirectoryError:
            return None
        except (ValueError, KeyError, TypeError):
            files.set_aside(self._endpoint, "it names no process")
            return None

    @property
    def is_published(self) -> bool:
        """False when `endpoint.json` is missing, as after damage."""
        return self._endpoint.exists()


@cache
def _opened(folder: Path, _device: int, _inode: int) -> int:
    """The folder as an open file, never closed, since clients connect through it."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def exists(pid: int) -> bool:
    """True while a process of this number exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
