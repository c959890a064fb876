"""`reference/scripts.md`: the legend of each Lua script."""

import re
from collections.abc import Iterator
from pathlib import Path

import fleet.store
from tests.docs.markdown import document

FOLDER = Path(fleet.store.__file__).parent / "scripts"

INTRODUCTION = """\
Each move in the store is one Lua script, which the server runs as one atomic step. A legend names
the arguments, the keys, the reply and the invariants. Files that begin with `_` are parts, which
are put before the scripts that name them. The states that the scripts move dispatches through are
in [Scripts and states](../design/scripts.md)."""


def page() -> str:
    """The page."""
    return document(
        "Scripts",
        "After reading this page you know every Lua script: its arguments, reply and invariants.",
        INTRODUCTION,
        "## Scripts",
        *(part for path in _files(parts=False) for part in _described(path)),
        "## Parts",
        *(part for path in _files(parts=True) for part in _described(path)),
    )


def _files(*, parts: bool) -> list[Path]:
    return sorted(path for path in FOLDER.glob("*.lua") if path.name.startswith("_") == parts)


def _described(path: Path) -> Iterator[str]:
    header = re.match(r"(?:--.*\n)+", path.read_text())
    assert header, path
    lines = [re.sub(r"^-- ?", "", line) for line in header[0].splitlines()]
    end = lines.index("") if "" in lines else len(lines)
    yield f"### `{path.name}`"
    yield " ".join(lines[:end])
    legend = "\n".join(lines[end + 1 :])
    if legend:
        yield f"```text\n{legend}\n```"
