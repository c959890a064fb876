"""Silences and acknowledgements of one machine's alerts, kept in its data folder.

Such alerts are open while the store is away, so to mark one needs no store.
"""

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fleet.errors import FleetError
from fleet.system import file_lock, files

_FILE = "alerts.json"
_LOCK = "alerts-write.lock"


@dataclass(frozen=True, slots=True)
class MachineMarks:
    """The marks of a machine's alerts, in the form of those in the store."""

    silences: dict[str, dict[str, Any]] = field(default_factory=dict)  #: by the condition's key
    acks: dict[str, dict[str, Any]] = field(default_factory=dict)  #: by the opening's id

    @property
    def silenced(self) -> frozenset[str]:
        """The keys of conditions that are sent to nobody now."""
        return frozenset(self.silences)


def read(data_dir: Path) -> MachineMarks:
    """The marks in force; none where they cannot be read."""
    try:
        stored = json.loads((data_dir.absolute() / _FILE).read_bytes())
        marks = MachineMarks(**stored)
        now_ms = time.time() * 1000
        force = {key: one for key, one in marks.silences.items() if one["until_ms"] > now_ms}
        return MachineMarks(force, dict(marks.acks))
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return MachineMarks()


def acknowledge(data_dir: Path, alert_id: str, opened: Collection[str], **mark: Any) -> None:
    """Record that somebody knows of an opening; what is over is forgotten. Raises FleetError."""

    def change(marks: MachineMarks) -> None:
        for one in marks.acks.keys() - set(opened):
            del marks.acks[one]
        marks.acks[alert_id] = {**mark, "at_ms": time.time() * 1000}

    _write(data_dir, change)


def silence(data_dir: Path, key: str, *, for_s: float, **mark: Any) -> None:
    """Silence a condition for a while. Raises FleetError."""
    now_ms = time.time() * 1000
    until_ms = now_ms + for_s * 1000

    def change(marks: MachineMarks) -> None:
        marks.silences[key] = {**mark, "since_ms": now_ms, "until_ms": until_ms}

    _write(data_dir, change)


def unsilence(data_dir: Path, key: str) -> bool:
    """End a silence; False where there is none. Raises FleetError."""
    found: list[Any] = []
    _write(data_dir, lambda marks: found.append(marks.silences.pop(key, None)))
    return found[0] is not None


def _write(data_dir: Path, change: Callable[[MachineMarks], None]) -> None:
    folder = data_dir.absolute()
    try:
        with _alone(folder / _LOCK):
            marks = read(folder)
            change(marks)
            files.replace(folder / _FILE, json.dumps(asdict(marks)))
    except OSError as error:
        raise FleetError(
            f"{folder / _FILE} cannot be written ({error.strerror}): make room, or give it to "
            "the fleet's user."
        ) from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with file_lock.locked(file):
            yield
    finally:
        os.close(file)
