"""A script's arguments have the same names in its legend, in its text and in Python."""

import re
from importlib import resources
from itertools import chain
from typing import Any

import pytest

from fleet.locks import calls as lock_calls
from fleet.store import alert_calls, calls, lease_calls, ledger_clock, life_calls
from fleet.store.script import Record, ScriptCall, listed, reachable_code, script_source

SCRIPTS = resources.files("fleet.store") / "scripts"
NAMES = sorted(file.name.removesuffix(".lua") for file in SCRIPTS.iterdir())
DECLARED: dict[str, type[ScriptCall[Any]]] = {
    kind.script: kind
    for kind in chain(
        *(
            vars(module).values()
            for module in (alert_calls, calls, lease_calls, ledger_clock, life_calls, lock_calls)
        )
    )
    if isinstance(kind, type) and issubclass(kind, ScriptCall) and kind is not ScriptCall
}


def code_of(name: str) -> str:
    return (SCRIPTS / f"{name}.lua").read_text().partition("\n\n")[2]


class AskCall(ScriptCall[int]):
    """Declared otherwise than the legend of `ask.lua` has it."""

    caller: str
    per_hour: int


class ItemArgs(Record):
    """An item of a list."""

    name: str
    size: int


class BoxCall(ScriptCall[None]):
    """A call with a list of records."""

    label: str
    color: str = "red"
    items: list[ItemArgs]


class ShelfCall(ScriptCall[None]):
    """A call with one record."""

    number: int
    item: ItemArgs


def test_each_script_has_a_call_and_each_call_a_script() -> None:
    assert set(DECLARED) == {name for name in NAMES if not name.startswith("_")}


@pytest.mark.parametrize("name", DECLARED)
def test_a_legend_and_its_declaration_agree(name: str) -> None:
    assert script_source(DECLARED[name])


def test_another_legend_than_was_declared_is_refused() -> None:
    with pytest.raises(TypeError, match=r"ask\.lua: .*'per_minute'.*AskCall .*'per_hour'.*same"):
        script_source(AskCall)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_uses_the_arguments_of_its_legend_and_no_others(name: str) -> None:
    lists = listed(name)
    assert set(re.findall(r"\bARG\.(\w+)", code_of(name))) == set(lists.pop("ARGV", ()))
    for names in lists.values():
        assert set(names) <= set(re.findall(r"\.(\w+)", code_of(name)))


def test_arguments_are_sent_in_the_order_of_their_declaration() -> None:
    items = [ItemArgs(size=1, name="a"), ItemArgs(name="b", size=2)]
    assert BoxCall(items=items, label="x").args() == ["x", "red", 2, "a", 1, "b", 2]
    assert BoxCall(label="x", color="blue", items=[]).args() == ["x", "blue", 0]
    assert ShelfCall(item=items[1], number=7).args() == [7, "b", 2]


def test_arguments_are_given_by_name() -> None:
    positional: Any = ItemArgs
    with pytest.raises(TypeError):
        positional("a", 1)
    with pytest.raises(TypeError, match="size"):
        positional(name="a")


def test_a_call_does_not_show_its_arguments() -> None:
    """They hold content, which must not get into a log."""
    assert "private" not in repr(ItemArgs(name="private", size=1))


PARTS = """\
local function named_in_a_text() return 1 end
local function named_in_a_comment()
  return 2
end
local function a_field() return 3 end
local announced, unused

local function helper(of)
  if of then return announced(of) end
end
-- Of one that is reached, also through a name that is declared before.
announced = function(of)
  return of
end
unused = function() return helper(1) end
local LIMIT = 3
"""


def test_a_script_has_the_functions_that_it_can_reach() -> None:
    own = "return {helper(LIMIT), 'named_in_a_text', ARG.a_field} -- named_in_a_comment()\n"
    left = reachable_code(PARTS + own)
    assert re.findall(r"^(?:local function )?(\w+)(?: = function)?\(", left, re.MULTILINE) == [
        "helper",
        "announced",
    ]
    assert left.endswith(f"local LIMIT = 3\n{own}")


@pytest.mark.parametrize("name", DECLARED)
def test_no_script_calls_a_function_that_was_left_out(name: str) -> None:
    text = script_source(DECLARED[name])
    code = re.sub(r"--.*", "", text)
    everything = "".join(code_of(part) for part in NAMES)
    functions = set(
        re.findall(r"^(?:local function )?(\w+)(?: = function)?\(", everything, re.MULTILINE)
    )
    inner = set(re.findall(r"^ +local function (\w+)", code, re.MULTILINE))
    called = set(re.findall(r"(?<![\w.:])(\w+)\(", code)) & functions
    made = set(re.findall(r"^(?:local function )?(\w+)(?: = function)?\(", code, re.MULTILINE))
    assert called - inner <= made
