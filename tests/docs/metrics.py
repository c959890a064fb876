"""`reference/metrics.md`: what a scrape of `/metrics` holds."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from fleet.ops.metrics import Clients, Reading, render
from tests.docs.markdown import code, document, sentence, table

INTRODUCTION = """\
`GET /metrics` of the API answers in Prometheus's text format, or in OpenMetrics. Figures of the
whole fleet come from the store, so every API process says the same; clients and the breaker are
the answering process's own. While the store is away, `fleet_up` is 0 and the fleet's figures are
left out. Labels are names of the configuration and words of the fleet, so their number is
bounded. [Monitoring](../operations/monitoring.md) has the alert rules and the dashboard."""

_READING = Reading(
    now_ms=1.0,
    accepted=1,
    bus_length=1,
    totals={},
    counts={},
    beat_s=1.0,
    providers={"PROVIDER": False},
    agents={"AGENT": (1, 0, 0.0, 0.0)},
)


def page() -> str:
    """The page."""
    return document(
        "Metrics",
        "After reading this page you can read every metric of `/metrics`.",
        INTRODUCTION,
        table(("metric", "type", "labels", "meaning"), _rows()),
    )


def _rows() -> Iterator[tuple[str, str, str, str]]:
    text, _ = render(_READING, Clients())
    for metric in text_string_to_metric_families(text.decode()):
        suffix = "_total" if metric.type == "counter" else ""
        meaning = sentence(metric.documentation)
        yield code(metric.name + suffix), metric.type, _labels(metric), meaning


def _labels(metric: Metric) -> str:
    names = dict.fromkeys(name for sample in metric.samples for name in sample.labels)
    return ", ".join(code(name) for name in names if name != "le")
