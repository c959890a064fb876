"""The account of a failed attempt: class and place for all, message and traceback as content."""

import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType

from fleet import runtime
from fleet.formats.redaction import mask_url
from fleet.ledger import Failure
from fleet.ledger.failures import (
    MESSAGE_BYTES_MAX,
    TRACEBACK_BYTES_MAX,
    first_bytes,
    last_bytes,
)
from fleet.system.environments import hide_secrets
from fleet.turn.turn import TurnFailed
from routing import Event

#: Of a traceback, the innermost; and of one line of it, since a message may be a whole prompt.
FRAMES_MAX, PIECE_CHARS_MAX = 40, 2000
#: A source file by its name. Code that was made from a text may have any name, a prompt's too.
_FILE = re.compile(r"[\w.@+/ -]{1,200}\.py")

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_OURS = tuple(
    f"{package}{os.sep}"
    for package in (
        Path(__file__).parents[1],
        Path(inspect.getfile(Failure)).parents[1],
        Path(inspect.getfile(Event)).parent,
    )
)


def explained(failure: Failure, error: BaseException) -> Failure:
    """The failure, with place, message and traceback of `error` where it has none of its own."""
    place = failure.place or place_of(error)
    message, trace = failure.message or _message(error), failure.traceback or _traceback(error)
    return _with_words(failure, place, message, trace)


def with_cause(failure: Failure, error: TurnFailed) -> Failure:
    """The failure that code gave by `error`, with what led to it where that says more."""
    cause = error.__cause__
    place = failure.place or place_of(error)
    message, trace = failure.message, failure.traceback
    if cause is not None and not message:
        place = place or place_of(cause)
        text = _message(cause)
        message = "" if text in failure.reason else f"{type(cause).__name__}: {text}"
        trace = trace or (_traceback(error) if message or place else "")
    return _with_words(failure, place, message, trace)


def place_of(error: BaseException) -> str:
    """File and line of the agent's own code that the error went through last; empty without any."""
    # It may be installed like a library.
    packages = set(runtime.current().settings.code_packages().values())
    found = ""
    for frame, line in _frames(error.__traceback__):
        code, module = frame.f_code, str(frame.f_globals.get("__name__", ""))
        found = _place(code.co_filename, line, module, packages) or found
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        found = _place(error.filename, error.lineno, "", packages) or found
    return found


def _place(file: str, line: int, module: str, packages: Collection[str]) -> str:
    is_own = module.partition(".")[0] in packages
    if not os.path.isabs(file) or not _FILE.fullmatch(file):
        return ""
    if not is_own and file.startswith((*_LIBRARIES, *_OURS)):
        return ""
    return f"{_short(file)}:{line}"


def _short(file: str) -> str:
    """The path below the folder from which Python imports it."""
    folders = (os.path.join(os.path.abspath(folder), "") for folder in (*sys.path, os.curdir))
    found = [folder for folder in folders if file.startswith(folder)]
    return file.removeprefix(max(found, key=len)) if found else os.path.basename(file)


def _frames(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno or 0
        trace = trace.tb_next


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever the class of an agent's own error does
        return "(its text cannot be read)"


def _traceback(error: BaseException) -> str:
    """The traceback from the first frame that is not the fleet's, with causes and notes."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    try:
        told = traceback.TracebackException(
            type(error), error, trace or error.__traceback__, limit=-FRAMES_MAX, compact=True
        )
        return "".join(_cut(piece) for piece in told.format()).rstrip()
    except Exception:  # noqa: BLE001 - as above
        return ""


def _cut(piece: str) -> str:
    return piece if len(piece) <= PIECE_CHARS_MAX else f"{piece[:PIECE_CHARS_MAX]} [...]\n"


def _with_words(failure: Failure, place: str, message: str, trace: str) -> Failure:
    """Content may be seen by those who may not see keys and passwords."""
    message, trace = (hide_secrets(mask_url(text)) for text in (message, trace))
    return replace(
        failure,
        place=place,
        message=first_bytes(message, MESSAGE_BYTES_MAX),
        traceback=last_bytes(trace, TRACEBACK_BYTES_MAX),
    )
