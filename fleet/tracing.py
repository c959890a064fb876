"""OpenTelemetry traces, if enabled: one trace from the sender to the model call.

The trace's context travels in the event, as CloudEvents' extension `traceparent`, so it survives
every crash and retry: each attempt is another span of the same trace. Tracing needs the extra
`otel` and OpenTelemetry's own variables, above all `OTEL_EXPORTER_OTLP_ENDPOINT`. Otherwise nothing
is imported, and a sender's context is only stored.

Spans hold ids, names and numbers, never content: not even the text of an exception.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

logger = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
#: Delay of the export. OpenTelemetry's 5 s are too long: a worker's child may be killed any moment.
_EXPORT_DELAY_MS = "1000"

Value = str | int | float


class Span:
    """A span under way; does nothing where tracing is disabled."""

    def __init__(self, traceparent: str, span: "OtelSpan | None" = None) -> None:
        self.traceparent = traceparent  #: the parent of follow-up work; may be empty
        self._span = span

    def set(self, **facts: Value) -> None:
        """Add attributes: ids, names and numbers."""
        if self._span is not None:
            self._span.set_attributes({f"fleet.{name}": value for name, value in facts.items()})


@contextmanager
def span(name: str, *, parent: str = "", **facts: Value) -> Iterator[Span]:
    """Open a span in the trace of `parent`, a `traceparent`, otherwise in the current trace."""
    tracer = _tracer(os.getpid()) if _enabled() else None
    if tracer is None:
        yield Span(parent)
        return
    from opentelemetry.trace import Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    context = propagator.extract({"traceparent": parent}) if parent else None
    with tracer.start_as_current_span(
        name, context=context, record_exception=False, set_status_on_exception=False
    ) as started:
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        current = Span(carrier.get("traceparent", parent), started)
        current.set(**facts)
        try:
            yield current
        except BaseException as error:
            started.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


@cache
def _enabled() -> bool:
    # Cached: a process's environment does not change, and every event passes here.
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return any(os.environ.get(name) for name in _ENDPOINTS) and not disabled


@cache
def _tracer(_pid: int) -> "Tracer | None":
    """The tracer of this process: exporting threads do not survive a fork."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning(
            "tracing is enabled, but the extra is missing: pip install agent-fleet[otel]"
        )
        return None
    os.environ.setdefault("OTEL_BSP_SCHEDULE_DELAY", _EXPORT_DELAY_MS)
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "fleet"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("fleet")
