"""The files of an embedded broker: who holds the folder, under which password, on which port.

Needs no Redis client, so that a command learns within a millisecond that no fleet is running.

The lock is the truth about life: the server inherits it, so it is held exactly while a server of
this folder lives, also when the fleet that started it was killed. `endpoint.json` says where that
server answers; its pid is 0 from before the server is started until it has answered.
"""

import fcntl
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fleet.errors import BrokerUnavailable


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
    BrokerUnavailable when the folder belongs to another user.
    """
    folder = BrokerFolder(data_dir)
    try:
        pid, port = folder.published()
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
            if self.password():
                return
        # Synced: an empty file after a power loss would be a server without a password.
        _replace(self._password, secrets.token_urlsafe(32), sync=True)

    def password(self) -> str:
        """The password of this folder's servers."""
        return self._password.read_text()

    def endpoint(self, pid: int, port: int) -> Endpoint:
        """The endpoint of a server of this folder."""
        return Endpoint(pid, port, f"redis://:{self.password()}@127.0.0.1:{port}/0")

    def publish(self, pid: int, port: int) -> None:
        """Tell everybody where the server answers; pid 0 while it does not answer yet."""
        _replace(self._endpoint, json.dumps({"pid": pid, "port": port}))

    def published(self) -> tuple[int, int]:
        """The pid and the port of the last server, alive or not; zeros when there was none."""
        try:
            told = json.loads(self._endpoint.read_text())
            return int(told["pid"]), int(told["port"])
        except (FileNotFoundError, NotADirectoryError):
            return 0, 0
        except (ValueError, KeyError, TypeError):
            # Cut by a power loss, which no server survived; the next start writes it anew.
            return 0, 0


def exists(pid: int) -> bool:
    """True while a process of this number exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _replace(path: Path, text: str, *, sync: bool = False) -> None:
    """Readers see the old content or the new, never a part; writers may be several."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
