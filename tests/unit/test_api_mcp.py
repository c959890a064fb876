"""The offer at `/mcp`, as it is configured."""

import subprocess
import sys

import pytest

from fleet.config.settings import parse
from fleet.errors import ConfigError

AGENTS = {"a": {"runner": "python", "python": "a:b"}}


def test_the_protocol_costs_nothing_until_it_is_spoken() -> None:
    loaded = "import fleet.api.app, sys; print('mcp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


@pytest.mark.parametrize("name", ["nowhere", "functions", "queue"])
def test_only_servers_of_tools_are_passed_on(name: str) -> None:
    tools = {"functions": {"python": "a:b"}}
    with pytest.raises(ConfigError, match=rf"^mcp\.tools: \[tools\.{name}\]"):
        parse({"agents": AGENTS, "tools": tools, "mcp": {"tools": [name]}})
