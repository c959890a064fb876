"""The documentation keeps up: every setting, command and state is described, and nothing else."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from fleet.cli import cli
from fleet.config.agents import AgentConfig
from fleet.config.deliveries import DeliveryConfig
from fleet.config.pools import PoolConfig
from fleet.config.routes import ChainConfig
from fleet.config.settings import Settings
from fleet.config.tools import ToolsConfig
from fleet.ledger import State

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs/reference/settings.md").read_text()
COMMANDS = (ROOT / "docs/reference/commands.md").read_text()
STATES = (ROOT / "docs/design/scripts.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
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
README_LINES_MAX = 180
#: Files and groups of entry points that are written like settings.
NO_SETTINGS = {
    "fleet.toml",
    "fleet.runners",
    "fleet.service",
    "api.json",
    "alerts.lock",
    "alerts.json",
}
#: Pages that name modules, which look like settings.
OF_MODULES = {"architecture.md"}


def settings() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        if name in SECTIONS and isinstance(field.default, BaseModel):
            yield from (f"{name}.{key}" for key in type(field.default).model_fields)
        elif name not in ("agents", "chains", "deliveries", "lanes", "pools", "tools"):
            yield f"fleet.{name}"
    yield from (f"agents.NAME.{key}" for key in AgentConfig.model_fields)
    yield from (f"chains.NAME.{key}" for key in ChainConfig.model_fields)
    yield from (f"deliveries.NAME.{key}" for key in DeliveryConfig.model_fields)
    yield from (f"pools.NAME.{key}" for key in PoolConfig.model_fields)
    yield from (f"tools.NAME.{key}" for key in ToolsConfig.model_fields)


@pytest.mark.parametrize("key", [*settings()])
def test_every_setting_is_described(key: str) -> None:
    assert f"`{key}`" in SETTINGS


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in OF_MODULES],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_no_setting_is_described_that_does_not_exist(page: Path) -> None:
    tables = "|".join(("fleet", r"agents\.NAME", r"chains\.NAME", *SECTIONS))
    described = set(re.findall(rf"`((?:{tables})\.(?!lua`)\w+)`", page.read_text()))
    assert described - NO_SETTINGS <= set(settings())


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
    assert re.search(rf"`{before} (?:[a-z]+\|)*{name}\b", COMMANDS.replace("\\|", "|")), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_command_is_described_that_does_not_exist(page: Path) -> None:
    known = {path.split()[1] for path in commands()}
    # A line of a terminal begins with it; in prose it stands in backquotes.
    assert (
        set(re.findall(r"(?:`|^    |^\$ )fleet ([a-z]+)", page.read_text(), re.MULTILINE)) <= known
    )


@pytest.mark.parametrize("state", [*State])
def test_every_state_is_in_the_picture(state: State) -> None:
    assert re.search(rf"\b{state}\b", STATES.partition("\n## Who moves what")[0])


def test_the_readme_stays_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= README_LINES_MAX
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_readme_lists_every_page(page: Path) -> None:
    assert f"]({page.relative_to(ROOT)})" in README


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    """A page outside the navigation and a link to nowhere are warnings, and fail the build."""
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(tmp_path),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert built.returncode == 0, built.stderr
    loaded = re.compile(
        r"""<(?:script|img|iframe|source)[^>]+https?:|<link[^>]+stylesheet[^>]+https?:"""
    )
    pages = [*tmp_path.rglob("*.html")]
    assert pages
    assert not [page.name for page in pages if loaded.search(page.read_text())]
