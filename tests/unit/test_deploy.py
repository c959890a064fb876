"""The unit of systemd and the Helm chart agree with the code, the manual and the compose file."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from fleet.config.settings import parse
from tests.fixtures.composed import COMPOSE, ROOT

DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "fleet.service").read_text()
CHART = DEPLOY / "helm" / "agent-fleet"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = {path.name: path.read_text() for path in (CHART / "templates").iterdir()}
DRAIN_S = parse({}, demo=True).drain_s


def in_unit(key: str) -> str:
    (value,) = re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def test_the_manual_shows_the_unit_as_it_is() -> None:
    page = (ROOT / "docs" / "operations" / "deploy.md").read_text()
    assert f"```ini\n{UNIT}```" in page


def test_a_turn_has_its_time_when_the_service_stops() -> None:
    assert float(in_unit("TimeoutStopSec")) > DRAIN_S + 10
    # The signal goes to `fleet up` alone, which stops the rest in order.
    assert in_unit("KillMode") == "mixed"
    assert in_unit("ExecStart").endswith("/fleet up")
    # The exit code of a fault in the configuration, which no restart mends.
    assert in_unit("RestartPreventExitStatus") == "2"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_knows_every_key_of_the_unit(tmp_path: Path) -> None:
    there = tmp_path / "fleet.service"
    there.write_text(UNIT.replace(in_unit("ExecStart"), "/bin/true up"))
    command = ["systemd-analyze", "verify", "--man=no", str(there)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == project["version"]
    assert chart["name"] == project["name"]


def test_the_values_are_those_of_their_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)
    Draft7Validator(SCHEMA).validate(VALUES)
    known = set(SCHEMA["properties"]) - {"global"}
    assert known == VALUES.keys()


@pytest.mark.parametrize("wrong", [{"agentz": {}}, {"api": {"replica": 2}}, {"config": 1}])
def test_a_misspelt_value_is_refused(wrong: dict[str, Any]) -> None:
    assert not Draft7Validator(SCHEMA).is_valid(wrong)


def test_every_value_that_a_template_reads_is_there() -> None:
    for text in TEMPLATES.values():
        for path in re.findall(r"\.Values((?:\.\w+)+)", text):
            value: Any = VALUES
            for part in path[1:].split("."):
                assert part in value, path
                value = value[part]


def test_a_turn_has_its_time_when_a_pod_stops() -> None:
    grace = "terminationGracePeriodSeconds"
    assert VALUES[grace] > DRAIN_S
    assert SCHEMA["properties"][grace]["minimum"] > DRAIN_S


def test_the_charts_valkey_keeps_as_the_compose_files_does() -> None:
    kept = {
        line
        for line in (ROOT / "compose" / "valkey.conf").read_text().splitlines()
        if line and not line.startswith(("#", "bind", "protected-mode"))
    }
    there = {line.strip() for line in TEMPLATES["valkey.yaml"].splitlines()}
    assert kept <= there
    image = COMPOSE["services"]["valkey"]["image"].partition("@")[0]
    assert VALUES["valkey"]["image"] == image


@pytest.mark.parametrize("service", ["intake", "delivery"])
def test_the_charts_workers_are_those_of_the_compose_file(service: str) -> None:
    for argument in COMPOSE["services"][service]["command"]:
        assert f'"{argument}"' in TEMPLATES["workers.yaml"]
