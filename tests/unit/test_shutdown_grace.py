"""A worker says at its start when the platform would kill it before it has drained."""

from pathlib import Path

import pytest

from fleet.config.settings import parse
from fleet.worker import shutdown_grace


def test_a_grace_that_is_too_short_is_named_with_its_remedy() -> None:
    settings = parse({"fleet": {"stop_grace_s": 10, "drain_s": 20}}, demo=True)
    assert shutdown_grace.warning(settings) == (
        "fleet.drain_s is 20 s, but this process is killed 10 s after SIGTERM "
        "(fleet.stop_grace_s): lower drain_s or raise the grace."
    )


def test_a_grace_that_is_long_enough_is_silent() -> None:
    assert (
        shutdown_grace.warning(parse({"fleet": {"stop_grace_s": 30, "drain_s": 20}}, demo=True))
        is None
    )


def test_kubernetes_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    settings = parse({"fleet": {"drain_s": 28}}, demo=True)
    assert "30 s after SIGTERM (Kubernetes' default" in str(shutdown_grace.warning(settings))


@pytest.mark.parametrize(
    ("span", "seconds"), [("1min 30s", 90.0), ("20s", 20.0), ("500ms", 0.5), ("infinity", None)]
)
def test_systemd_time_spans(span: str, seconds: float | None) -> None:
    assert shutdown_grace._span_s(span) == seconds


def test_a_compose_file_that_runs_a_fleet_needs_a_longer_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(shutdown_grace, "_is_container_program", lambda: False)
    settings = parse({"fleet": {"drain_s": 20}}, demo=True)
    file = tmp_path / "compose.yaml"
    file.write_text('services:\n  host:\n    command: ["fleet", "host"]\n')
    assert "compose.yaml sets no stop_grace_period" in str(shutdown_grace.warning(settings))
    file.write_text(f"{file.read_text()}    stop_grace_period: 40s\n")
    assert shutdown_grace.grace(settings) is None
    file.write_text("services:\n  database:\n    image: valkey\n")
    assert shutdown_grace.grace(settings) is None
