"""The answer of a running fleet to an order to reload, in its data folder.

`fleet reload` sends SIGUSR2, which no closed terminal sends, to the process that the file names,
and waits for the answer of a reload that began later.
"""

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fleet.system import files
from fleet.system.clock import boottime
from fleet.system.process_identity import identity, is_gone

_FILE = "reload.json"


@dataclass(frozen=True, slots=True)
class ReloadAnswer:
    """The end of a reload; before the first one it only names the process to ask."""

    pid: int
    process: str  #: see `process_identity`
    began: float = 0.0  #: by `boottime`
    ok: bool = True
    lines: Sequence[str] = ()

    @classmethod
    def of_this_process(
        cls, began: float = 0.0, ok: bool = True, lines: Sequence[str] = ()
    ) -> "ReloadAnswer":
        """An answer of this process."""
        return cls(os.getpid(), identity(), began, ok, tuple(lines))

    def write(self, data_dir: Path) -> None:
        """Publish it. Raises OSError."""
        files.replace(data_dir.absolute() / _FILE, json.dumps(asdict(self)))

    @property
    def gone(self) -> bool:
        """True when the process that wrote it has ended."""
        return is_gone(self.process)

    def request(self) -> float:
        """Ask its process for another reload; the moment of that. Raises ProcessLookupError."""
        asked = boottime()
        os.kill(self.pid, signal.SIGUSR2)
        return asked


def read_answer(data_dir: Path) -> ReloadAnswer | None:
    """The newest answer, None where no fleet has run. Raises OSError."""
    found = files.read_json(data_dir.absolute() / _FILE)
    return ReloadAnswer(**found) if found else None


def forget_answer(data_dir: Path) -> None:
    """Remove the answer. Raises OSError."""
    (data_dir.absolute() / _FILE).unlink(missing_ok=True)
