"""The journal of a turn: its finished steps, which a later attempt finds again.

A step is known by its name, its request and its occurrence: the first, second ... of that name and
request to begin in the turn. So steps may begin and end in any order, in threads too. A step that
begins in the call of another is counted within it, since a later attempt may not make that call.

Nothing here takes a lock. A time limit may interrupt the turn between any two instructions, and
must not leave a lock held; so what threads share changes by single operations of a built-in.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import Any

from pydantic_core import from_json, to_json

from fleet.ledger.views import in_order

#: Of a result without a JSON form, which is kept as text.
REPR_CHARS_MAX = 65536
#: Of a step's request, which is kept for people to read; a longer one loses its beginnings.
REQUEST_CHARS_MAX = 8192


@dataclass(frozen=True, slots=True)
class Step:
    """One step that has begun, and its entry from an earlier attempt."""

    number: int
    name: str
    digest: str
    occurrence: int
    key: str  #: under which this attempt journals it
    started: float
    finished: Mapping[str, Any] | None
    request: Any = None  #: as the journal keeps it

    def entry(self, attempt: int, result: Any, flags: dict[str, Any]) -> str:
        """The journal's entry of this step, once it has finished."""
        entry = {
            "name": self.name,
            "hash": self.digest,
            "occurrence": self.occurrence,
            "attempt": attempt,
            "elapsed_s": round(time.monotonic() - self.started, 3),
            "request": self.request,
            "result": result,
        }
        return json.dumps(entry | flags, ensure_ascii=False)


#: The journal and the identity of the step in whose call this thread or task is. One that a time
#: limit left behind is of no other turn's journal.
_enclosing: ContextVar[tuple["Journal", str] | None] = ContextVar("enclosing", default=None)


class Journal:
    """The steps of one attempt, and the entries of earlier attempts."""

    def __init__(self, attempt: int, load: Callable[[], dict[str, str]]) -> None:
        """`load` reads the entries; before the second attempt there are none."""
        self._attempt, self._load = attempt, load
        self._entries: dict[str, str] | None = {} if attempt == 1 else None
        self._known: dict[tuple[str, int], dict[str, Any]] = {}
        self._numbers = count(1)
        self._begun: set[int] = set()
        self._occurrences: dict[str, Iterator[int]] = {}
        self._found: set[tuple[str, int]] = set()
        self._missed: set[str] = set()  #: names of steps without an entry

    @property
    def steps(self) -> int:
        """The number of steps begun so far."""
        return len(self._begun)

    @property
    def changed(self) -> list[str]:
        """Names of steps that this attempt ran anew beside an entry that it did not ask for."""
        unused = {entry["name"] for key, entry in self._known.items() if key not in self._found}
        return sorted(unused & self._missed)

    def begin(self, name: str, request: Any) -> Step:
        """Begin a step. Raises TypeError for a request without a JSON form."""
        journal, outer = _enclosing.get() or (None, "")
        text = json_text(
            [name, request, outer] if journal is self else [name, request],
            f"the request of step {name!r} is not a JSON value",
            sort_keys=True,
        )
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        entries = self._read()
        number = next(self._numbers)
        self._begun.add(number)
        occurrence = next(self._occurrences.setdefault(digest, count(1)))
        finished = self._known.get((digest, occurrence))
        if finished is None:
            self._missed.add(name)
        else:
            self._found.add((digest, occurrence))
        # A number that an earlier attempt gave to another step is taken.
        key = f"{number}.{self._attempt}" if str(number) in entries else str(number)
        # From the text: the caller may change its request, and a part of it may have no encoding.
        kept = json.loads(text)[1]
        if len(text) > REQUEST_CHARS_MAX:
            kept = _shortened(kept)
        return Step(number, name, digest, occurrence, key, time.monotonic(), finished, kept)

    @contextmanager
    def within(self, step: Step) -> Iterator[None]:
        """While this lasts, the steps that begin here are within `step`."""
        before = _enclosing.get()
        _enclosing.set((self, f"{step.digest}.{step.occurrence}"))
        try:
            yield
        finally:
            _enclosing.set(before)

    def _read(self) -> dict[str, str]:
        if self._entries is None:
            entries = self._load()
            self._known = _by_identity(entries)
            self._entries = entries
        return self._entries


def json_text(value: Any, fault: str, *, sort_keys: bool = False) -> str:
    """The value as JSON in UTF-8. Raises TypeError that begins with `fault`."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=sort_keys)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{fault}: {error}") from error
    return text.encode(errors="replace").decode()


def _shortened(request: Any) -> Any:
    """The ends of a long request, of each of its values where it is an object."""
    if isinstance(request, Mapping):
        share = REQUEST_CHARS_MAX // len(request)
        return {name: _end(value, share) for name, value in request.items()}
    return _end(request, REQUEST_CHARS_MAX)


def _end(value: Any, chars_max: int) -> Any:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= chars_max:
        return value
    return f"… {text[-chars_max:]}"


def readable(value: Any) -> Any:
    """A JSON value for people, from one that has no JSON form."""
    # The call is made and paid, whatever the object's own methods raise.
    with suppress(Exception):
        return from_json(to_json(value, fallback=repr, inf_nan_mode="strings"))
    with suppress(Exception):
        return ascii(value)[:REPR_CHARS_MAX]
    return type(value).__name__


def _by_identity(entries: Mapping[str, str]) -> dict[tuple[str, int], dict[str, Any]]:
    """The entries by digest and occurrence.

    Entries of earlier versions have no occurrence: of one digest they count in their order.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for _, text in in_order(entries):
        entry: dict[str, Any] = json.loads(text)
        digest = entry.get("hash")
        if digest is None:  # what code raised, by an earlier version
            continue
        occurrence = entry.get("occurrence") or 1
        while "occurrence" not in entry and (digest, occurrence) in found:
            occurrence += 1
        found[digest, occurrence] = entry
    return found
