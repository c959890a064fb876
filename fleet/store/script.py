"""A script as a typed function: its arguments have names, in Python and in its legend.

The legend of `scripts/<name>.lua` lists the arguments in their order on the wire, and
`fleet.store.calls` declares the same names with types. Both are compared when the script is loaded.
In the script an argument is a field of the table `ARG`. On the wire it has a position and no name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, ClassVar, Generic, Protocol, TypeVar, dataclass_transform

Arg = str | bytes | int | float

#: The type of a script's answer.
R = TypeVar("R")
#: The type of the calls in a batch.
C = TypeVar("C", covariant=True)

#: A list that goes on with an indented line.
_WITH = re.compile(r"^-- With +([\w, ]+(?:\n-- {8,}[\w, ]+)*)$", re.MULTILINE)
#: A list of arguments in a legend; a line that is indented further goes on with the line before.
_LIST = re.compile(r"^-- (ARGV|\w+Args)\n((?:--   .+\n)+)", re.MULTILINE)
_NAME = re.compile(r"^--   (\w+)(\.\.\.)?(?: |$)", re.MULTILINE)
#: A function of a part: on one line, or up to the next `end` that is not indented.
_FUNCTION = re.compile(
    r"^((?:local function (\w+)|(\w+) = function)\b(?:.*\bend$|.*\n(?:(?!end$).*\n)*end$)\n?)",
    re.MULTILINE,
)
_DECLARED = re.compile(r"^local [\w, ]+$", re.MULTILINE)
_SILENT = re.compile(r"'(?:\\.|[^'\\\n])*'|--.*")
_WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*")


@dataclass_transform(kw_only_default=True, eq_default=False)
class Record:
    """Named values in the order of their list in a legend.

    The last one may be another record or a list, which is sent as its length and its items.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # Without a repr: arguments hold content.
        dataclass(kw_only=True, eq=False, repr=False)(cls)

    def args(self) -> list[Arg]:
        """The values as they are sent."""
        # An instance has its fields in the order in which they were declared.
        values = list(vars(self).values())
        last = values[-1] if values else None
        if isinstance(last, Record):
            values[-1:] = last.args()
        elif isinstance(last, list):
            values[-1] = len(last)
            for item in last:
                values += item.args() if isinstance(item, Record) else (item,)
        return values


class ScriptCall(Record, Generic[R]):
    """One call of a script, which answers an R."""

    script: ClassVar[str]
    #: The part before each script of its kind.
    library: ClassVar[str] = "_lib"
    #: False for one that changes nothing; a server that takes no writes answers it too.
    writes: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.script = re.sub(r"\B([A-Z])", r"_\1", cls.__name__.removesuffix("Call")).lower()


class Batch(Protocol[C]):
    """Several calls; iterated over once, and again when they are sent again."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[C]: ...


#: The part before all others; alone it is the library of the script that looks at the clock.
CLOCK = "_clock"
#: The parts before the library of all scripts that may move a dispatch.
_BEFORE_LIB = ("_sums", "_gather", "_wakeups")

_sources: dict[type[ScriptCall[Any]], str] = {}

#: A server at its `maxmemory` refuses the first write of a script that may need memory, and none
#: after a write. So what is accepted is renewed and ended there too; intake counts by itself.
_WRITE_FIRST = "redis.call('DEL', 'fleet:none')\n"
#: See `_clock.lua`.
_SURE_FIRST = "if IS_STALE then return redis.error_reply('STALE look at the clock first') end\n"


def script_source(kind: type[ScriptCall[Any]]) -> str:
    """The text of a script after its library, and after the parts that its legend's `With` names.

    Raises TypeError where a legend and the declarations in Python differ.
    """
    if kind not in _sources:
        more = _WITH.search(_legend(kind.script))
        parts = [kind.library, *(re.findall(r"\w+", more[1]) if more else ()), kind.script]
        if kind.library != CLOCK:
            parts[:0] = [CLOCK, *(_BEFORE_LIB if kind.library == ScriptCall.library else ())]
        made = {name: _bound(name, kind) for name in parts}
        if kind.writes:
            made[CLOCK] += _WRITE_FIRST if kind.library == CLOCK else _SURE_FIRST + _WRITE_FIRST
        _sources[kind] = reachable_code("\n".join(made.values()))
    return _sources[kind]


def reachable_code(text: str) -> str:
    """The text without the functions of its parts that nothing in it can reach.

    A script makes all of its functions anew at each call, and that was a fifth of an acceptance.
    """
    functions: dict[str, list[str]] = {}
    for body, name, assigned in _FUNCTION.findall(text):
        functions.setdefault(name or assigned, []).append(body)
    # A name that is only declared first is not used by that.
    reached, new = set[str](), _words(_DECLARED.sub("", _FUNCTION.sub("", text)))
    while new := (new & functions.keys()) - reached:
        reached |= new
        new = set[str]().union(*(_words(body) for name in new for body in functions[name]))
    return _FUNCTION.sub(lambda found: found[0] if (found[2] or found[3]) in reached else "", text)


def _words(code: str) -> set[str]:
    """The names in Lua code; those in comments and texts, and of fields, do not count."""
    return set(_WORD.findall(_SILENT.sub("", code)))


def listed(name: str) -> dict[str, list[str]]:
    """The lists of arguments in the legend of `scripts/<name>.lua`: title -> names."""
    found = _LIST.findall(_legend(name))
    return {title: [n for n, _ in _NAME.findall(rows)] for title, rows in found}


def _bound(name: str, kind: type[ScriptCall[Any]]) -> str:
    """The text of a file, after the Lua that reads the arguments in its legend by their names."""
    made = []
    for title, rows in _LIST.findall(_legend(name)):
        found = _NAME.findall(rows)
        _check(name, [one for one, _ in found], kind if title == "ARGV" else _record(name, title))
        made.append(_reader(title, found))
    return "".join(made) + _text(name)


def _reader(title: str, found: list[tuple[str, str]]) -> str:
    """Lua that makes a table of arguments; a name with dots is the place where its own begin."""
    first = "" if title == "ARGV" else "at + "
    places = [f"{first}{n if first else n + 1}" for n in range(len(found))]
    values = ", ".join(
        f"{name} = {place}" if dots else f"{name} = ARGV[{place}]"
        for (name, dots), place in zip(found, places, strict=True)
    )
    if title == "ARGV":
        return f"local ARG = {{{values}}}\n"
    return f"local function {title}(at) return {{{values}}}, at + {len(found)} end\n"


def _check(name: str, names: list[str], declared: type[Record]) -> None:
    ours = [field.name for field in fields(declared)]  # type: ignore[arg-type]
    if ours != names:
        raise TypeError(
            f"{name}.lua: its legend lists {names}, {declared.__name__} declares {ours}: "
            "make both the same."
        )


def _record(name: str, title: str) -> type[Record]:
    for declared in Record.__subclasses__():
        if declared.__name__ == title:
            return declared
    raise TypeError(f"{name}.lua: its legend lists {title}, which no class declares: declare it.")


def _legend(name: str) -> str:
    return _text(name).partition("\n\n")[0] + "\n"


@cache
def _text(name: str) -> str:
    return (resources.files("fleet.store") / "scripts" / f"{name}.lua").read_text(encoding="utf-8")
