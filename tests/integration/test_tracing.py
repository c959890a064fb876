"""One trace from the sender to the model call, at a real collector; nothing where nobody asks."""

import gzip
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from routing import Event
from tests.fixtures.fleet import fleet_of
from tests.fixtures.processes import wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Takes what OpenTelemetry's exporter sends."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.raw = b""
        self.spans: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans |= {span.name: span for span in scope.spans}
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


_SEND = """
import json, sys
from fleet import runtime
sent = {"to": "a", "text": "steps xyzzy", "traceparent": sys.argv[1]}
print(json.dumps(runtime.current().intake.accept(sent).to_wire()))
"""


def test_one_trace_from_the_sender_through_intake_and_worker_to_the_step(
    collector: Collector, tmp_path: Path
) -> None:
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_TRACES_SAMPLER": "always_on"}
    with fleet_of(tmp_path, {"a": {}}) as fleet:
        fleet.open_gate("xyzzy")
        sender = fleet.start(
            "send", sys.executable, "-c", _SEND, f"00-{TRACE}-{PARENT}-01", **asked
        )
        assert sender.wait(60) == 0, sender.said()
        worker = fleet.start(
            "a",
            *(str(Path(sys.executable).with_name("celery")), "-A", "fleet", "worker"),
            *("-Q", "agent.a", "-c", "1", "-n", "a@%h", "--without-mingle", "--without-gossip"),
            **asked,
        )
        wait_until(lambda: len(collector.spans) == 3 or not worker.alive, 60)
        intake, dispatch, step = (
            collector.spans[name] for name in ("fleet.intake", "fleet.dispatch", "fleet.step call")
        )
        assert {span.trace_id.hex() for span in collector.spans.values()} == {TRACE}
        assert intake.parent_span_id.hex() == PARENT
        assert dispatch.parent_span_id == intake.span_id
        assert step.parent_span_id == dispatch.span_id
        facts = {fact.key: fact.value for fact in dispatch.attributes}
        assert facts["fleet.agent"].string_value == "a"
        assert facts["fleet.state"].string_value == "completed"
        assert facts["fleet.attempt"].int_value == 1
        assert b"xyzzy" not in collector.raw


def test_without_being_asked_nothing_is_imported_and_the_senders_context_is_kept() -> None:
    code = """
import sys
from fleet import tracing
with tracing.span("x", parent="00-1-2-03", a=1) as span:
    span.set(b=2)
    assert span.traceparent == "00-1-2-03"
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("said", "kept"),
    [(f"00-{TRACE}-{PARENT}-01", True), ("nonsense", False), (7, False), (f"00-{TRACE}", False)],
)
def test_a_context_is_kept_with_the_event_and_a_malformed_one_is_not(
    said: object, kept: bool
) -> None:
    event = Event.parse(
        {"text": "hello", "traceparent": said}, new_id="1", now="2026-01-01T00:00:00Z"
    )
    assert event.traceparent == (said if kept else "")
    again = Event.parse(event.to_wire(), new_id="2", now="2026-01-01T00:00:00Z")
    assert again == event
