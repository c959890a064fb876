"""The rules of an agent's callable: what can be called with a turn, and what can be its answer."""

import inspect
import types
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from typing import Any

from pydantic import PydanticUserError, TypeAdapter

ANSWERS = "an answer is text, bytes in UTF-8, None, or a value that has a JSON form"

#: Values of these are awaited: the last parameter is the answer.
_AWAITED = (Awaitable, Coroutine)
#: Values of these are taken apart: the first parameter must be text.
_TAKEN_APART = (Iterator, Generator, AsyncIterable, AsyncIterator, AsyncGenerator)


def fault_of(target: object) -> str | None:
    """Why `target` cannot be called with a turn alone, as the end of a sentence about it."""
    if not callable(target):
        return f"is {type(target).__name__}, which cannot be called"
    try:
        inspect.signature(target).bind(object())
    except ValueError:  # it does not tell what it takes
        return None
    except TypeError as error:
        return f"cannot be called with a turn alone: {error}"
    return None


def return_fault_of(target: Callable[..., Any]) -> str | None:
    """Why its declared value cannot be an answer; None also where it declares nothing readable."""
    try:
        declared = _declared(target)
    except (AttributeError, NameError, TypeError, SyntaxError):
        return None
    return _fault(declared)


def _declared(target: Callable[..., Any]) -> Any:
    """The annotation of the value, `Any` where there is none; one that is a text is evaluated."""
    function: Any = inspect.unwrap(target)
    if inspect.isclass(function):
        return Any
    if not inspect.isroutine(function):
        function = inspect.unwrap(type(function).__call__)
    function = getattr(function, "__func__", function)
    alone = types.FunctionType((lambda: None).__code__, function.__globals__)
    alone.__annotations__ = {"return": function.__annotations__.get("return", Any)}
    return typing.get_type_hints(alone)["return"]


def _fault(declared: Any) -> str | None:
    origin, parameters = typing.get_origin(declared), typing.get_args(declared)
    if origin in (typing.Union, types.UnionType):
        return next((fault for part in parameters if (fault := _fault(part))), None)
    if origin in _AWAITED:
        return _fault(parameters[-1]) if parameters else None
    if origin in _TAKEN_APART:
        yielded = parameters[0] if parameters else Any
        if yielded is Any or (inspect.isclass(yielded) and issubclass(yielded, str)):
            return None
        return f"yields {_name(yielded)}: a generator yields text"
    return None if _has_json_form(declared, origin) else f"returns {_name(declared)}: {ANSWERS}"


def _has_json_form(declared: Any, origin: Any) -> bool:
    if (origin or declared) in (Callable, type):
        return False
    if inspect.isclass(declared) and (
        issubclass(declared, str | bytes)
        # Of what an instance of these is, nothing is known.
        or inspect.isabstract(declared)
        or getattr(declared, "_is_protocol", False)
    ):
        return True
    try:
        TypeAdapter(declared)
    except PydanticUserError:
        return False
    return True


def _name(declared: Any) -> str:
    return declared.__name__ if inspect.isclass(declared) else str(declared)
