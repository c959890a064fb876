"""A data folder belongs to one user, and nobody else can put anything into it.

Its files hold a password, events and the breaker that stops all calls. Whoever plants one of them,
or a link in its place, decides what the fleet reads and where it writes.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fleet.errors import FleetError

#: Levels below the folder that the fleet itself makes.
_DEPTH = 2
REMEDY = "give all of it to this user alone (chown, chmod go-w, no links)"


def private(data_dir: Path) -> Path:
    """The data folder, absolute, where it is missing or safe to use.

    Raises FleetError, in one sentence with the remedy, for what `fault_of` finds.
    """
    if fault := fault_of(data_dir):
        raise FleetError(
            f"The data folder {data_dir} is not safe to use: {fault}; {REMEDY}, "
            "or set fleet.data_dir to another folder."
        )
    return data_dir.absolute()


def fault_of(data_dir: Path) -> str:
    """The first entry that is another user's, that others can change, or that is a link.

    An empty string where there is none.
    """
    folder = data_dir.absolute()
    for path in (folder, *_entries(folder, _DEPTH)):
        try:
            fault = _fault(path, path.lstat(), top=path == folder)
        except FileNotFoundError:  # missing, or gone a moment ago
            continue
        except OSError as error:
            fault = f"cannot be read ({error.strerror})"
        if fault:
            return f"{path} {fault}"
    return ""


def _fault(path: Path, status: os.stat_result, *, top: bool) -> str:
    """The reason why nothing there may be used, or an empty string."""
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    if stat.S_ISLNK(status.st_mode):
        # The folder itself may lie on another disk.
        return _fault(path, path.stat(), top=True) if top else "is a symbolic link"
    if stat.S_ISSOCK(status.st_mode):
        return ""
    others = stat.S_IWGRP | stat.S_IWOTH if top else stat.S_IWOTH
    return "can be changed by other users" if status.st_mode & others else ""


def _entries(folder: Path, depth: int) -> Iterator[Path]:
    try:
        found = [(Path(entry), entry.is_dir(follow_symlinks=False)) for entry in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # told by whoever uses it
    for path, is_folder in found:
        yield path
        if is_folder and depth > 1:
            yield from _entries(path, depth - 1)
