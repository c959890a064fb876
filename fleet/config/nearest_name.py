"""The key that a misspelt one of the file was meant to be: the known ones, and the guess."""

import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from routing.nearest_name import nearest

__all__ = ["known_keys", "nearest"]


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
