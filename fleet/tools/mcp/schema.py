"""The schema of a tool's arguments, in a form that every provider of models accepts.

A provider refuses a whole request because of one bad schema in it, and all other tools with it.
"""

from collections.abc import Mapping
from typing import Any

_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
#: Keywords whose value is a schema, a list of schemas, or an object of schemas.
_ONE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
#: Keywords for which null is a value.
_ANY_VALUE = frozenset({"default", "const"})
DEPTH_MAX = 64


class BadSchema(ValueError):
    """A schema that cannot be mended; the text continues a sentence about it."""


def arguments_schema(schema: Any) -> dict[str, Any]:
    """The schema of an object, without keywords that are null. Raises BadSchema."""
    if schema is None:
        schema = {}
    if not isinstance(schema, Mapping):
        raise BadSchema("is not an object")
    mended = _mended(schema, 0)
    if mended.setdefault("type", "object") != "object":
        raise BadSchema("is not that of an object")
    mended.setdefault("properties", {})
    return mended


def _mended(schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
    if depth > DEPTH_MAX:
        raise BadSchema(f"is deeper than {DEPTH_MAX} levels")
    found = {
        name: value for name, value in schema.items() if value is not None or name in _ANY_VALUE
    }
    _check_words(found)
    for name in found.keys() & _NAMED:
        if not isinstance(found[name], Mapping):
            raise BadSchema(f"has {name} that are not an object")
        found[name] = {key: _part(value, depth) for key, value in found[name].items()}
    for name in found.keys() & _SEVERAL:
        if not isinstance(found[name], list) or not found[name]:
            raise BadSchema(f"has {name} without schemas")
        found[name] = [_part(value, depth) for value in found[name]]
    for name in found.keys() & _ONE:
        if name == "items" and isinstance(found[name], list):
            found[name] = [_part(value, depth) for value in found[name]]
        else:
            found[name] = _part(found[name], depth)
    return found


def _part(schema: Any, depth: int) -> Any:
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, Mapping):
        raise BadSchema("has a part that is not a schema")
    return _mended(schema, depth + 1)


def _check_words(schema: Mapping[str, Any]) -> None:
    kind = schema.get("type", "object")
    kinds = kind if isinstance(kind, list) else [kind]
    if not kinds or not all(isinstance(one, str) and one in _TYPES for one in kinds):
        raise BadSchema("names a type that there is not")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(one, str) for one in required):
        raise BadSchema("has a `required` that is not a list of names")
    if not isinstance(schema.get("enum", []), list):
        raise BadSchema("has an `enum` that is not a list")
