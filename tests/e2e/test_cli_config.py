"""A wrong configuration or a wrong command line: one sentence that names what, and exit 2."""

from pathlib import Path

import pytest

from tests.e2e.running import Place

AGENT = '[agents.archie]\nmodel = "echo/brief"\n'


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("[fleet]\nbroker_ulr = 'x'\n" + AGENT, "fleet.broker_ulr"),
        ("[fleets]\n" + AGENT, "fleets"),
        ("[fleet]\ndispatch_timeout_s = 'long'\n" + AGENT, "fleet.dispatch_timeout_s"),
        ("[fleet]\ndispatch_timeout_s = 3600\n" + AGENT, "fleet.dispatch_timeout_s"),
        ("[fleet]\nbroker_url = 'http://x'\n" + AGENT, "fleet.broker_url"),
        ("[agents.archie]\nrunner = 'llm'\n", "agents.archie"),
        ("[agents.archie]\nmodel = 'm'\ntimeout_s = -1\n", "agents.archie.timeout_s"),
        ("[agents.archie]\nmodel = 'm'\nmodell = 'm'\n", "agents.archie.modell"),
        ("[agents.archie]\nrunner = 'python'\npython = 'nowhere'\n", "agents.archie"),
        ("[agents.all]\nmodel = 'm'\n", "agents.all"),
        (AGENT + "[routes]\ndefault = ['nobody']\n", "routes.default"),
        (AGENT + "[routes]\ngroups = { both = ['archie', 'gem'] }\n", "routes.groups.both"),
        (AGENT + "[api]\nport = 70000\n", "api.port"),
        ("", "agents"),
        ("[fleet\n", "fleet.toml"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_the_key(
    tmp_path: Path, config: str, names: str
) -> None:
    answer = Place(tmp_path, config).fleet("up")
    assert answer.code == 2
    assert names in answer.one_sentence()
    assert not (tmp_path / ".fleet").exists(), "nothing was started"


@pytest.mark.parametrize(
    ("name", "value"), [("FLEET_BROKER_ULR", "x"), ("FLEET_API__PORT", "many")]
)
def test_a_wrong_variable_is_one_sentence(tmp_path: Path, name: str, value: str) -> None:
    answer = Place(tmp_path, None, {name: value}).fleet("agents")
    assert answer.code == 2
    assert answer.one_sentence()


def test_the_value_of_a_wrong_setting_may_be_secret_and_is_not_shown(tmp_path: Path) -> None:
    config = "[fleet]\nbroker_url = 'http://:hunter2@x'\n" + AGENT
    answer = Place(tmp_path, config).fleet("agents")
    assert "hunter2" not in answer.out + answer.err


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    here = Place(tmp_path, None)
    for answer in (
        here.fleet("--config", "other.toml", "agents"),
        here.fleet("agents", "--config", "other.toml"),
        Place(tmp_path, None, {"FLEET_CONFIG": "other.toml"}).fleet("agents"),
    ):
        assert answer.code == 2
        assert "other.toml" in answer.one_sentence()


def test_without_a_file_the_demo_fleet_is_configured(tmp_path: Path) -> None:
    answer = Place(tmp_path, None).fleet("route", "hello @sleepy", "--json")
    assert (answer.json["agents"], answer.json["reason"]) == (["sleepy"], "mentions: @sleepy")


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("send",),
        ("send", "x", "--event", "y"),
        ("send", "x", "--priority", "10"),
        ("send", "x", "--timeout", "3"),
        ("send", "x", "--unknown"),
        ("queue", "list", "--state", "asleep"),
        ("queue", "list", "--limit", "0"),
        ("queue", "drain", "archie"),
        ("dlq", "replay"),
        ("dlq", "purge"),
        ("agents", "pause"),
        ("agents", "pause", "archie", "--all"),
        ("events", "--since", "yesterday"),
        ("bench", "nonsense"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_sentence(tmp_path: Path, args: tuple[str, ...]) -> None:
    answer = Place(tmp_path, '[routes]\ndefault = ["archie"]\n' + AGENT).fleet(*args)
    assert answer.code == 2
    assert answer.one_sentence()


@pytest.mark.parametrize(
    "args",
    [("agents",), ("send", "hello"), ("queue", "stats"), ("dlq", "list"), ("events",), ("health",)],
    ids=" ".join,
)
def test_without_a_running_fleet_it_says_how_to_start_one(
    tmp_path: Path, args: tuple[str, ...]
) -> None:
    answer = Place(tmp_path, None).fleet(*args)
    assert answer.code == 1
    assert "fleet up" in answer.one_sentence()


def test_health_is_a_document_when_nothing_runs(tmp_path: Path) -> None:
    answer = Place(tmp_path, None).fleet("health", "--json")
    assert answer.code == 1
    assert answer.json["status"] == "down"
