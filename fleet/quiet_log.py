"""A process's log without a word of the events that it handles.

A prompt gets into a log by what others write: the message of an exception, a library's warning, or
Celery's dump of a message that it refuses. Records are therefore cut down where they are made,
whichever handler writes them:

- An exception is its place (files, lines and functions) and its type. Its message is left out.
- A library's record keeps its words, and of what it fills in only numbers, ids and names of tasks.
  Words that it has filled in before are left out.
- Records of the fleet, of Celery's and uvicorn's own working, and of the user's code stay. Of the
  exceptions that the user's code fills in only the types are told.
"""

import logging
import os
import re
import sys
import sysconfig
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from fleet.config.settings import load
from fleet.errors import FleetError
from fleet.system.output_guard import guard_output

LEFT_OUT = "(left out)"
#: A library's words that it had filled in before the record was made.
_ONLY_PLACE = "%s: words left out, as log_content is false"
_OURS = ("fleet", "tasks", "routing")
#: Libraries whose records tell how a process works, in words that hold no message.
_TRUSTED = ("celery", "flower", "multiprocessing", "py", "uvicorn")
#: Where these speak of a message or a result: its body, headers, arguments, or what a task raised.
_OF_MESSAGES = (
    "celery.app.trace",
    "celery.worker.control",
    "celery.worker.pidbox",
    "celery.worker.request",
    "celery.worker.strategy",
)
_DUMPS = ("on_unknown_message", "on_unknown_task", "on_invalid_task", "on_decode_error")
#: Of the arguments by name; those of `celery.app.trace` and `celery.worker.strategy`.
_SHOWN_KEYS = ("description", "hostname", "id", "name", "runtime")
_NAME = re.compile(r"fleet\.[a-z_]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Messages of these are the fleet's or the system's own.
_SHOWN_ERRORS = (FleetError, OSError)
_DEEPEST = 100  #: frames, and causes

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


def guard_log() -> None:
    """Have this process wait for no reader, and log no content unless its configuration says so."""
    guard_output()
    settings = load()
    if settings.log_content:
        return
    logging.setLogRecordFactory(_Records((*_OURS, *settings.code_packages().values())))
    # Otherwise a record whose arguments do not fit is printed with them.
    logging.raiseExceptions = False
    warnings.formatwarning = _warning
    sys.excepthook = _on_exception
    sys.unraisablehook = _on_unraisable
    threading.excepthook = _on_thread_exception
    # The end of a process that `multiprocessing` forked, and code that prints what it caught.
    traceback.print_exc = _print_caught


def described(error: BaseException) -> str:
    """The types and places of an exception and its causes, without their messages."""
    return "\n".join(_lines(error, set()))


class _Left(str):
    """A text that stands for an argument, under `%r` too."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class _Records:
    """Makes the records of `logging`."""

    def __init__(self, own: Collection[str]) -> None:
        self._own = frozenset(own)

    def __call__(
        self,
        name: str,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        sinfo: str | None = None,
        **kwargs: Any,
    ) -> logging.LogRecord:
        error = exc_info[1] if isinstance(exc_info, tuple) else None
        msg, args = self._words(name, pathname, func, msg, args)
        record = logging.LogRecord(
            name, level, pathname, lineno, msg, args, None, func, sinfo, **kwargs
        )
        if error is not None:
            record.exc_text = described(error)
        try:
            record.getMessage()
        except Exception:  # noqa: BLE001 - whatever a formatting raises
            record.msg, record.args = "a record whose arguments do not fit its words", None
        return record

    def _words(
        self, name: str, pathname: str, func: str | None, msg: object, args: Any
    ) -> tuple[object, Any]:
        root = name.partition(".")[0]
        if isinstance(msg, BaseException):
            msg, args = "%s", (msg,)
        if root in _OURS:
            return msg, _each(args, _without_message)
        if root in self._own or not pathname.startswith(_LIBRARIES):
            return msg, _each(args, _only_type)
        trusted = root in _TRUSTED
        if not args:
            return (msg, args) if trusted else (_ONLY_PLACE, (name,))
        if trusted and not (name.startswith(_OF_MESSAGES) or func in _DUMPS):
            return msg, _each(args, _without_message)
        return msg, _each(args, _plain)


def _each(args: Any, shown: Callable[[Any], Any]) -> Any:
    if not isinstance(args, tuple):
        return args
    if len(args) == 1 and isinstance(args[0], Mapping):  # arguments by name
        by_name = args[0].items()
        return (
            {
                key: (_without_message if key in _SHOWN_KEYS else shown)(value)
                for key, value in by_name
            },
        )
    return tuple(map(shown, args))


def _without_message(value: Any) -> Any:
    if isinstance(value, BaseException) and not isinstance(value, _SHOWN_ERRORS):
        return _Left(type(value).__name__)
    return value


def _only_type(value: Any) -> Any:
    # Agents' code opens files by names that it was given, and raises OSErrors in its own words.
    return _Left(_kind(value)) if isinstance(value, OSError) else _without_message(value)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    if isinstance(value, BaseException):
        return _Left(type(value).__name__)
    return _Left(LEFT_OUT)


def _lines(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and id(cause) not in seen and len(seen) < _DEEPEST:
        yield from _lines(cause, seen)
        yield "which led to:"
    frame = error.__traceback__
    for _ in range(_DEEPEST):
        if frame is None:
            break
        yield f"  {_place(frame.tb_frame.f_code, frame.tb_lineno)}"
        frame = frame.tb_next
    # Last, where a supervisor and a reader of tracebacks look for it.
    yield _kind(error)
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            if id(member) not in seen and len(seen) < _DEEPEST:
                yield from (f"  | {line}" for line in _lines(member, seen))


def _place(code: types.CodeType, line: int | None) -> str:
    if not _is_file(code.co_filename):
        return f"generated code, line {line}"
    return f'File "{code.co_filename}", line {line}, in {code.co_name}'


def _is_file(name: str) -> bool:
    """False for code that was made from a text: its names may be words of the text."""
    return os.path.isabs(name) or name.startswith("<frozen ")


def _kind(error: BaseException) -> str:
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    if isinstance(error, OSError) and error.errno is not None:
        kind += f": {os.strerror(error.errno)}"
    return kind


def _warning(
    message: "Warning | str",
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    place = f"{filename}:{lineno}" if _is_file(filename) else f"generated code, line {lineno}"
    return f"{place}: {category.__name__}\n"


def _on_exception(
    kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
) -> None:
    if isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        _print(f"ended by:\n{described(error)}")


def _on_thread_exception(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        _print(f"a thread ended by:\n{described(args.exc_value)}")


def _on_unraisable(args: "sys.UnraisableHookArgs") -> None:
    if args.exc_value is not None:
        _print(f"passed over:\n{described(args.exc_value)}")


def _print_caught(limit: int | None = None, file: Any = None, chain: bool = True) -> None:
    error = sys.exception()
    if file not in (None, sys.stdout, sys.stderr):
        traceback.print_exception(error, limit=limit, file=file, chain=chain)
    elif error is not None:
        _print(described(error))


def _print(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")
