"""`fleet up` with variables for outgoing calls that nothing can use."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.running import HEAD, place


class _Handler(BaseHTTPRequestHandler):
    """A service, and a model provider, that answer everybody."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        answer = {"text": "hello", "id": "1", "object": "chat.completion", "created": 1}
        message = {"role": "assistant", "content": "hello"}
        answer["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
        body = json.dumps({**answer, "model": "m"}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_only_the_calls_that_need_them_fail(service: int, tmp_path: Path) -> None:
    others = {
        "NO_PROXY": "fd00::/8,127.0.0.0/8",
        "ALL_PROXY": "socks://user:hidden@127.0.0.1:1",
        "SSL_CERT_FILE": "/not/there.pem",
        "SSLKEYLOGFILE": "/not/there/keys",
    }
    once = "retry = { attempts = 1, min_age_s = 0 }"
    config = f"""{HEAD}
[agents.near]
runner = "http"
url = "http://127.0.0.1:{service}/"
[agents.far]
runner = "http"
url = "http://example.invalid/"
{once}
[agents.model]
model = "openai/m"
params = {{ api_base = "http://127.0.0.1:{service}/v1", api_key = "k" }}
[agents.cloud]
model = "openai/m"
params = {{ api_base = "https://example.invalid/v1", api_key = "k" }}
{once}
"""
    with place(tmp_path, config, others) as found:
        found.up()
        assert found.outcome("x", "--to", "near")["answer"] == "hello"
        assert found.outcome("x", "--to", "model")["answer"] == "hello"
        for agent in ("far", "cloud"):
            ended = found.outcome("x", "--to", agent)
            assert ended["state"] == "dead"
            assert "ALL_PROXY" in json.dumps(ended) or agent == "cloud"
            assert "hidden" not in json.dumps(ended)
        told = [row["what"] for row in found.fleet("doctor", "--json").json["findings"]]
        for name in ("ALL_PROXY", "SSL_CERT_FILE", "SSLKEYLOGFILE"):
            assert len([what for what in told if what.startswith(f"{name}:")]) == 1
            assert found.said.count(f"fleet: {name}: ") == 1
        assert "hidden" not in json.dumps(told) + found.said
        assert found.stop() == 0
