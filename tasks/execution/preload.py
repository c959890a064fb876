"""Imports in a worker's parent before it forks, so that its children start fast and share memory.

LiteLLM's import takes seconds, and the first call imports hundreds of modules more. Imported once
in the parent, all children have them, on shared pages. The parent itself must never make a call:
LiteLLM starts threads with its first call, and a fork with threads may inherit held locks. So a
forked child makes the call and reports the modules that it imported; the parent imports the same.
"""

import importlib
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from tasks.model import completion

_log = logging.getLogger(__name__)

#: The probe makes a handful of calls to this machine; that takes 1 s on an idle core.
PROBE_S_MAX = 15.0

_ANSWER = {
    "id": "warm",
    "object": "chat.completion",
    "created": 1,
    "model": "warm",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreloadReport:
    """The gain of `preload_for`: modules that a first call need not import, and its duration."""

    modules: int
    seconds: float


def preload() -> None:
    """Import LiteLLM and register the echo provider; starts no thread and opens no connection."""
    completion.load()


def preload_for(models: Iterable[str] = ()) -> PreloadReport:
    """Import the modules that the first call of `models` would import, besides LiteLLM itself.

    Forks once and waits for that child at most `PROBE_S_MAX`. After a failed probe first calls
    import for themselves. The caller forks its workers after `gc.collect()` and `gc.freeze()`.

    Raises RuntimeError where the process has more than one thread, before or after.
    """
    started = time.monotonic()
    _single_threaded("before")
    preload()
    names = _imported_by_a_call(("openai/warm", "echo/brief", *models))
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001 - a module that only the probe could import is not needed
            _log.warning("could not import %s ahead of the first call", name)
    _single_threaded("after")
    return PreloadReport(modules=len(names), seconds=time.monotonic() - started)


def _single_threaded(when: str) -> None:
    tasks = Path("/proc/self/task")
    count = len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()
    if count != 1:
        raise RuntimeError(f"preloading needs a process of one thread, {when} it there are {count}")


def _imported_by_a_call(models: Iterable[str]) -> list[str]:
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(readable)
            _probe(models, writable)
        except Exception:  # noqa: BLE001 - logged; the parent goes on without the modules
            _log.exception("the probe of a first call failed")
        finally:
            # Not sys.exit: that would run the parent's exit handlers and flush its buffers.
            os._exit(0)
    os.close(writable)
    try:
        report = _read_all(readable, time.monotonic() + PROBE_S_MAX)
    finally:
        os.close(readable)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not report:
        _log.warning("no answer from the probe: first calls will import for themselves")
        return []
    return [str(name) for name in json.loads(report)]


def _read_all(readable: int, until: float) -> bytes:
    """All bytes up to the end; none where the end did not come in time."""
    received = b""
    while select.select([readable], [], [], max(0.0, until - time.monotonic()))[0]:
        piece = os.read(readable, 1 << 16)
        if not piece:
            return received
        received += piece
    return b""


def _probe(models: Iterable[str], writable: int) -> None:
    before = set(sys.modules)
    server = HTTPServer(("127.0.0.1", 0), _Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    params = {"api_base": f"http://127.0.0.1:{server.server_port}", "api_key": "warm"}
    for name in models:
        for on_token in (None, _ignore):
            try:
                completion.complete(
                    model=name,
                    messages=[{"role": "user", "content": "warm"}],
                    timeout_s=5.0,
                    deadline=time.monotonic() + PROBE_S_MAX,
                    params=params,
                    on_token=on_token,
                )
            except completion.ModelError as error:
                # A provider with another protocol: its modules are loaded all the same.
                _log.debug("probe: %s", error)
    names = [name for name in sys.modules if name not in before]
    report = json.dumps(names).encode()
    while report:
        report = report[os.write(writable, report) :]


def _ignore(_: str) -> None:
    """Ignore a piece of a stream."""


class _Provider(BaseHTTPRequestHandler):
    """Answers `ok` to every call, as a document or as a stream."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps(_ANSWER).encode()
        kind = "application/json"
        if request.get("stream"):
            chunk = _ANSWER | {"object": "chat.completion.chunk"}
            body = b"data: " + json.dumps(chunk).replace('"message"', '"delta"').encode()
            body, kind = body + b"\n\ndata: [DONE]\n\n", "text/event-stream"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
