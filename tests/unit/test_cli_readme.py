"""The README keeps up: every setting, every command and every state is in it, and nothing else."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from fleet.cli import cli
from fleet.delivery.section import Delivery
from fleet.ledger import State
from fleet.sections import Agent, Chain
from fleet.settings import Settings
from fleet.toolservers.section import Tool

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
#: Sections that are tables of their own in the file; the other keys belong to `[fleet]`.
SECTIONS = (
    "routes",
    "bus",
    "sessions",
    "caps",
    "breaker",
    "spool",
    "alerts",
    "api",
    "flower",
    "locks",
    "mcp",
    "upstream",
)


def settings() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        if name in SECTIONS and isinstance(field.default, BaseModel):
            yield from (f"{name}.{key}" for key in type(field.default).model_fields)
        elif name not in ("agents", "chains", "deliveries", "lanes", "tools"):
            yield f"fleet.{name}"
    yield from (f"agents.NAME.{key}" for key in Agent.model_fields)
    yield from (f"chains.NAME.{key}" for key in Chain.model_fields)
    yield from (f"deliveries.NAME.{key}" for key in Delivery.model_fields)
    yield from (f"tools.NAME.{key}" for key in Tool.model_fields)


def rows(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("key", [*settings()])
def test_every_setting_is_described(key: str) -> None:
    assert f"`{key}`" in rows("Configuration")


def test_no_setting_is_described_that_does_not_exist() -> None:
    tables = "|".join(("fleet", r"agents\.NAME", r"chains\.NAME", *SECTIONS))
    described = set(re.findall(rf"`((?:{tables})\.\w+)`", README))
    assert described - {"fleet.toml", "fleet.runners", "api.json"} <= set(settings())


def commands(group: click.Group = cli, path: str = "fleet") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}"


@pytest.mark.parametrize("path", [*commands()])
def test_every_command_is_described(path: str) -> None:
    before, _, name = path.rpartition(" ")
    described = rows("Commands").replace("\\|", "|")
    assert re.search(rf"`{before} (?:[a-z]+\|)*{name}\b", described), path


@pytest.mark.parametrize("state", [*State])
def test_every_state_is_in_the_picture(state: State) -> None:
    assert re.search(rf"\b{state}\b", rows("How it works"))
