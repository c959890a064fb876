"""A data folder that is not this user's alone is refused, in one sentence."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.config.settings import parse
from fleet.errors import FleetError
from fleet.ops.doctor.permissions import secret_files
from fleet.runtime import Runtime
from fleet.system.data_dir import private
from fleet.system.data_dir_lock import lock_data_dir

AGENTS = {"a": {"runner": "python", "python": "a:b"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    for name in ("broker", "spool", "log"):
        (made / name).mkdir(parents=True, mode=0o700)
        (made / name / "file").write_text("")
    made.chmod(0o755)
    return made


def writable(folder: Path) -> Path:
    folder.chmod(0o770)
    return folder


def writable_inside(folder: Path) -> Path:
    (folder / "spool").chmod(0o777)
    return folder / "spool"


def writable_file(folder: Path) -> Path:
    (folder / "spool/file").chmod(0o666)
    return folder / "spool/file"


def linked(folder: Path) -> Path:
    (folder / "breaker").symlink_to("/etc/passwd")
    return folder / "breaker"


def linked_inside(folder: Path) -> Path:
    (folder / "broker/password").symlink_to(folder / "log/file")
    return folder / "broker/password"


def another_users(folder: Path) -> Path:
    os.chown(folder, 12345, -1)
    return folder


def another_users_inside(folder: Path) -> Path:
    os.chown(folder / "spool/file", 12345, -1)
    return folder / "spool/file"


CHANGED, LINK, FOREIGN = "can be changed by other users", "is a symbolic link", "another user"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (writable, CHANGED),
        (writable_inside, CHANGED),
        (writable_file, CHANGED),
        (linked, LINK),
        (linked_inside, LINK),
        pytest.param(another_users, FOREIGN, marks=needs_root),
        pytest.param(another_users_inside, FOREIGN, marks=needs_root),
    ],
)
def test_it_is_refused_by_whatever_would_use_it(
    folder: Path, spoil: Callable[[Path], Path], fault: str
) -> None:
    settings = parse({"fleet": {"data_dir": str(folder)}, "agents": AGENTS})
    spoilt = spoil(folder)
    pattern = (
        f"^The data folder {folder} is not safe to use: {spoilt} .*{fault};[^.]*fleet.data_dir"
    )
    runtime = Runtime(settings)
    for use in (lambda: runtime.breaker, lambda: runtime.spool, lambda: locked(folder)):
        with pytest.raises(FleetError, match=pattern):
            use()
    (found,) = [one for one in secret_files(settings) if one.level == "error"]
    assert found.what.startswith(str(spoilt))
    assert fault in found.what


def locked(folder: Path) -> None:
    with lock_data_dir(folder):
        pass


def test_one_that_is_ours_is_used(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "server.sock"))
        (folder / "server.sock").chmod(0o777)
        assert private(folder) == folder
    locked(folder)


def test_it_may_lie_on_another_disk(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert private(tmp_path / "link") == tmp_path / "link"
    folder.chmod(0o777)
    with pytest.raises(FleetError, match=CHANGED):
        private(tmp_path / "link")


def test_a_new_one_is_closed_to_others(tmp_path: Path) -> None:
    locked(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
