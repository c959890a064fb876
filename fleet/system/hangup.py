"""The two meanings of SIGHUP: the end of a terminal, and the order to read settings anew."""

import os
import signal
from enum import Enum


class Meaning(Enum):
    """The meaning of one SIGHUP."""

    RELOAD = "read the settings anew"
    STOP = "the terminal was closed"
    NOTHING = "it was closed, and nohup has the process outlive it"


class Hangup:
    """Remembers how SIGHUP and the terminal were when the process began; make it early."""

    def __init__(self) -> None:
        self._on_terminal = _has_terminal()
        self._outlives = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN

    def meaning(self) -> Meaning:
        """The meaning of the SIGHUP that has just come."""
        if not self._on_terminal or _has_terminal():
            return Meaning.RELOAD
        self._on_terminal = False
        return Meaning.NOTHING if self._outlives else Meaning.STOP


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
