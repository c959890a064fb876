"""Python functions as tools: type hints and docstrings describe them to the model.

def get_price(item: str, amount: int = 1) -> float:      # tools.shop.python = "my_tools:tools"
    "What so many of an item cost, in euros."
    ...

tools = [get_price]                                      # or an instance, for its public methods
"""

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError, validate_call
from pydantic_core import to_json

from fleet.formats.terminal_text import sanitize_value
from fleet.tools.mcp.names import NAME

Function = Callable[..., Any]


class ToolError(Exception):
    """A failed call; its text is for the model, and says what to do instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The description of a tool for the model; `parameters` is the JSON schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    #: The tool's name in its set, where providers would refuse it.
    called: str = ""

    @property
    def own_name(self) -> str:
        """The tool's name in its set."""
        return self.called or self.name

    def wire(self) -> dict[str, Any]:
        """The tool in the form of the chat completions protocol."""
        described = {"description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": {"name": self.name, **described}}


class FunctionToolbox:
    """A set of functions, called with arguments validated against their type hints."""

    def __init__(self, target: object) -> None:
        """`target` is a list of functions, or an object whose public methods are the tools.

        Raises ValueError; its text continues a sentence that begins with the target's name.
        """
        found = {_name(function): function for function in _functions(target)}
        self.specs: Sequence[Spec] = [_spec(*named) for named in found.items()]
        self._functions = {name: validate_call(function) for name, function in found.items()}

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a function. A string is returned as it is, any other result as JSON."""
        try:
            result = self._functions[name](**arguments)
        except ValidationError as error:
            raise ToolError(_argument_errors(error)) from error
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        if isinstance(result, str):
            return result
        text = to_json(result, fallback=str).decode()
        # JSON escapes a terminal's control codes; a reader of the JSON would revive them.
        return text if "\\u00" not in text else json.dumps(sanitize_value(json.loads(text)))


def _functions(target: object) -> list[Function]:
    if isinstance(target, list | tuple):
        found = list(target)
    elif inspect.isclass(target) or inspect.isroutine(target):
        raise ValueError("must be a list of functions or an instance, not a class or a function")
    else:
        members = inspect.getmembers(target, inspect.ismethod)
        found = [method for name, method in members if not name.startswith("_")]
    if not found or not all(inspect.isroutine(item) for item in found):
        raise ValueError("must be a list of functions, or an instance with public methods")
    return found


def _name(function: Function) -> str:
    name = str(getattr(function, "__name__", ""))
    if not NAME.match(name):
        raise ValueError(f"has a function {name!r}: a tool's name is letters, digits, '_' and '-'")
    return name


def _spec(name: str, function: Function) -> Spec:
    target: Any = function  # pydantic accepts a function as a type, its stubs do not
    try:
        schema = TypeAdapter[Any](target).json_schema()
    except (PydanticUserError, NameError, TypeError) as error:
        raise ValueError(f"has a function {name} whose type hints have no JSON schema") from error
    if schema.get("type") != "object":
        raise ValueError(f"has a function {name} whose parameters cannot be given by name")
    return Spec(name=name, description=inspect.getdoc(function) or "", parameters=schema)


def _argument_errors(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    messages = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found[:10])
    return f"the arguments are wrong: {'; '.join(messages)}"
