"""The dashboard and the alert rules name metrics, labels and commands that there are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fleet.ledger import FailureStage, State
from fleet.ops import metrics
from fleet.ops.metrics import Clients, Reading

COMPOSE = Path(__file__).resolve().parents[2] / "compose"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((COMPOSE / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((COMPOSE / "grafana/dashboards/fleet.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in PANELS
        for target in panel["targets"]
    },
}
NOTHING: dict[str, int] = {}
FULL = Reading(
    now_ms=0,
    accepted=0,
    bus_length=0,
    totals=NOTHING,
    counts=NOTHING,
    providers={"openai": False},
    beat_s=0.0,
    agents={"a": (1, 0, 0.0, 0.0)},
)


def samples() -> dict[str, dict[str, set[str]]]:
    """Every sample's name, with the labels it has and their values."""
    body, _ = metrics.render(FULL, Clients())
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_names_what_is_exported(name: str) -> None:
    exported = samples()
    query = QUERIES[name]
    named = re.findall(r"\b(fleet_\w+)\b(?:\{([^}]*)\})?", query)
    assert named
    for metric, selector in named:
        assert metric in exported
        for label, operator, values in re.findall(r'(\w+)(=~|=)"([^"]*)"', selector):
            assert label in exported[metric]
            if label not in ("agent", "provider"):
                given = values.split("|") if operator == "=~" else [values]
                assert set(given) <= exported[metric][label]
    for labels in re.findall(r"(?:by|on) \(([^)]*)\)", query):
        known = {label for metric, _ in named for label in exported[metric]}
        assert {label.strip() for label in labels.split(",")} <= known
    assert query.count("(") == query.count(")")


def test_every_metric_of_the_fleet_is_on_the_dashboard() -> None:
    shown = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    families = {
        family.name
        for family in text_string_to_metric_families(metrics.render(FULL, Clients())[0].decode())
    }
    missing = {name for name in families if name not in shown}
    assert missing <= {"fleet_build_info", "fleet_agent_paused"}


def test_every_state_and_stage_is_exported() -> None:
    exported = samples()
    assert exported["fleet_failures_total"]["stage"] == {str(stage) for stage in FailureStage}
    states = exported["fleet_dispatches"]["state"] | exported["fleet_outcomes_total"]["outcome"]
    assert states == {*map(str, State), "unverified"}


def test_an_alert_says_what_is_wrong_and_how_bad_it_is() -> None:
    for rule in RULES:
        assert rule["alert"].startswith("Fleet")
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"]["summary"].endswith(".")


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_services_find_their_files_and_stay_on_this_machine() -> None:
    overlay = yaml.safe_load((COMPOSE / "metrics.yaml").read_text())
    base = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    assert not set(overlay["services"]) & set(base["services"])
    for service in overlay["services"].values():
        assert re.search(r":v?[0-9.]+@sha256:[0-9a-f]{64}$", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        sources = [volume.split(":")[0] for volume in service["volumes"]]
        assert all((COMPOSE / source).is_dir() for source in sources if source.startswith("."))
    scrape = yaml.safe_load((COMPOSE / "prometheus" / "prometheus.yml").read_text())
    (target,) = scrape["scrape_configs"][0]["static_configs"][0]["targets"]
    service, _, port = target.partition(":")
    assert base["services"][service]["ports"] == [f"127.0.0.1:{port}:{port}"]
    source = yaml.safe_load(
        (COMPOSE / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
