"""A worker says at its start when the platform would kill it before it has drained."""

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
