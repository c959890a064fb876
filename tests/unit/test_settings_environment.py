"""`FLEET_...` that sets nothing: the nearest name for a typo, and what others put there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.config.foreign_environment import elsewhere, not_settings
from fleet.config.settings import Settings, parse
from fleet.errors import ConfigError

ONE = {"agents": {"a": {"runner": "python", "python": "m:f"}}}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FLEET_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("FLEET_BROKER_ULR", "FLEET_BROKER_URL"),
        ("FLEET_BROKERURL", "FLEET_BROKER_URL"),
        ("FLEET_API_PORT", "FLEET_API__PORT"),
        ("FLEET_BUS_MAX_LENGTH", "FLEET_BUS__MAX_LENGTH"),
        ("FLEET_AGENT__A__MODEL", "FLEET_AGENTS__A__MODEL"),
        ("FLEET_DRAIN", "FLEET_DRAIN_S"),
    ],
)
def test_a_variable_that_is_nearly_ours_is_told_the_name(
    variable: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "8700")
    with pytest.raises(ConfigError) as refusal:
        parse(ONE)
    assert f"{variable}: no setting has this name; did you mean {meant}?" in str(refusal.value)


#: What Kubernetes sets beside Services named `fleet`, `fleet-api` and `fleet-broker`.
OF_SERVICES = {
    "FLEET_SERVICE_HOST": "10.0.0.1",
    "FLEET_SERVICE_PORT": "80",
    "FLEET_SERVICE_PORT_HTTP": "80",
    "FLEET_PORT": "tcp://10.0.0.1:80",
    "FLEET_PORT_80_TCP": "tcp://10.0.0.1:80",
    "FLEET_PORT_80_TCP_PROTO": "tcp",
    "FLEET_PORT_80_TCP_PORT": "80",
    "FLEET_PORT_80_TCP_ADDR": "10.0.0.1",
    "FLEET_PORT_53_UDP": "udp://[fd00::1]:53",
    "FLEET_API_SERVICE_HOST": "10.0.0.2",
    "FLEET_API_SERVICE_PORT": "8700",
    "FLEET_API_PORT": "tcp://10.0.0.2:8700",
    "FLEET_API_PORT_8700_TCP": "tcp://10.0.0.2:8700",
    "FLEET_API_PORT_8700_TCP_ADDR": "10.0.0.2",
    "FLEET_BROKER_PORT": "sctp://10.0.0.3:6379",
}


def test_what_describes_a_service_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    before = parse(ONE)
    for name, value in OF_SERVICES.items():
        monkeypatch.setenv(name, value)
    assert parse(ONE) == before
    assert parse(ONE).api.port == 8700
    assert not_settings(Settings.model_fields) == sorted(OF_SERVICES)


def test_what_other_products_of_this_name_set_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = parse(ONE)
    theirs = [
        *("FLEET_MYSQL_ADDRESS", "FLEET_SERVER_CERT", "FLEET_SESSION_DURATION"),
        *("FLEET_SESSION_KEY_SIZE", "FLEET_URL", "FLEET_ENROLLMENT_TOKEN"),
        *("FLEET_SERVER_PORT", "FLEET_CA", "FLEET_AGENT_ID", "FLEET_ENV", "FLEET_VERSION"),
        *("FLEET_PORT", "FLEET_SERVICE", "FLEET_PORT_80", "FLEET__SECTION__KEY"),
    ]
    for name in theirs:
        monkeypatch.setenv(name, "8700")
    assert parse(ONE) == before
    assert not_settings(Settings.model_fields) == sorted(theirs)
    assert elsewhere() is None
    monkeypatch.setenv("FLEET_TOKEN", "")
    assert not_settings(Settings.model_fields) == sorted({*theirs} - {"FLEET_URL"})
    assert elsewhere() == ("8700", "")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLEET_API_PORT", "http://10.0.0.2:8700"),
        ("FLEET_BROKER_URL", "tcp://10.0.0.1:80"),
        ("FLEET_API__PORT", "tcp://10.0.0.1:80"),
    ],
)
def test_what_only_looks_like_a_service_is_a_mistake(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError):
        parse(ONE)


def test_a_mistake_ends_celery_with_two(tmp_path: Path) -> None:
    """One line on standard error, no traceback."""
    (tmp_path / "fleet.toml").write_text("[agents.a]\n")
    celery = Path(sys.executable).with_name("celery")
    done = subprocess.run(
        [celery, "-A", "fleet", "report"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        'fleet: agents.a: has no model: set `model = "provider/name"`.'
    ]
