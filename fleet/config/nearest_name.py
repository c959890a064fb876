"""The known name that a misspelt one was meant to be: a key of the file, or a variable."""

import typing
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known name that is most like `name`, and at least by `likeness`, 1.0 for the same."""
    plain = {_plain(one): one for one in known}
    found = get_close_matches(_plain(name), plain, 1, likeness)
    return plain[found[0]] if found else None


def known_keys(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """The keys of the table at `path` below `model`; names that people gave are passed over."""
    tables = [model]
    for part in path:
        fields = [table.model_fields[part] for table in tables if part in table.model_fields]
        if fields:
            tables = [table for field in fields for table in _tables(field.annotation)]
    return [key for table in tables for key in table.model_fields]


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _tables(inner)


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
