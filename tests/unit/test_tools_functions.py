"""A Python function's description for a model, and the results of its calls."""

import json
from typing import Any

import pytest

from fleet.tools.functions import FunctionToolbox, ToolError


def price(item: str, *, amount: int = 1, tags: list[str] | None = None) -> dict[str, Any]:
    """The price of so many of an item."""
    return {"item": item, "amount": amount, "tags": tags}


async def later(text: str) -> str:
    return text


class Shop:
    def __init__(self, stock: int) -> None:
        self._stock = stock

    def get_stock(self) -> int:
        """How many there are."""
        return self._stock

    def _secret(self) -> None: ...


def test_type_hints_and_docstring_are_the_schema() -> None:
    (spec,) = FunctionToolbox([price]).specs
    told = spec.wire()
    assert told["type"] == "function"
    assert told["function"]["name"] == "price"
    assert told["function"]["description"] == "The price of so many of an item."
    schema = told["function"]["parameters"]
    assert schema["required"] == ["item"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["amount"]["type"] == "integer"
    json.dumps(told)


def test_public_methods_of_an_instance_are_tools() -> None:
    box = FunctionToolbox(Shop(7))
    assert [spec.name for spec in box.specs] == ["get_stock"]
    assert box.call("get_stock", {}) == "7"


def test_a_string_is_the_answer_and_the_rest_is_json() -> None:
    box = FunctionToolbox([price, later])
    assert json.loads(box.call("price", {"item": "x", "amount": "3"})) == {
        "item": "x",
        "amount": 3,
        "tags": None,
    }
    assert box.call("later", {"text": "as it is"}) == "as it is"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({}, "item"), ({"item": 3}, "item"), ({"item": "x", "no": 1}, "no")],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ToolError, match=f"arguments are wrong.*{named}"):
        FunctionToolbox([price]).call("price", arguments)


def positional(x: int, /) -> int:
    return x


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (price, "not a class or a function"),
        (Shop, "not a class or a function"),
        ([], "must be a list of functions"),
        ([1], "must be a list of functions"),
        (object(), "public methods"),
        ([lambda: 1], "'<lambda>'"),
        ([positional], "cannot be given by name"),
    ],
)
def test_what_is_no_set_of_tools_is_refused(target: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FunctionToolbox(target)
