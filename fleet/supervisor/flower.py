"""Flower, as the fleet runs it: read-only, with a history on disk, for no foreign page.

Flower asks for no login, and answers any page that a browser sends to it. So it has the checks of
an API without tokens: see `fleet.formats.host_names`.
"""

import os
from collections.abc import Collection
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL
from pathlib import Path
from typing import Any, NoReturn

from flower import command
from flower.app import Flower
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.web import ErrorHandler

from fleet.config.settings import load
from fleet.errors import FleetError
from fleet.formats.host_names import is_allowed, is_foreign_origin
from fleet.supervisor.celery_child import await_broker, run_celery
from fleet.system.lifeline import watch_lifeline

#: What Flower keeps, in memory and on disk; about 5 KB each.
TASKS_MAX = 10_000
SAVE_INTERVAL_MS = 30_000
LOOPBACK = "127.0.0.1"

_CANNOT_LISTEN = frozenset({EACCES, EADDRINUSE, EADDRNOTAVAIL})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class LocalFlower(Flower):
    """A Flower that refuses the requests of foreign pages."""

    allowed_hosts: Collection[str] = ()

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate:
        """The handler of a request; Tornado calls this before anything of Flower sees it."""
        origin = request.headers.get("Origin")
        changes = request.method not in _SAFE_METHODS or "Upgrade" in request.headers
        if not is_allowed(request.host, self.allowed_hosts) or (
            changes and is_foreign_origin(origin, request.host)
        ):
            refusal = {"status_code": 403}
            delegate: HTTPMessageDelegate = self.get_handler_delegate(
                request, ErrorHandler, refusal
            )
            return delegate
        found: HTTPMessageDelegate = super().find_handler(request, **kwargs)
        return found


def serve(address: str = LOOPBACK, port: int | None = None) -> NoReturn:
    """Run Flower until a signal, or the end of the supervisor; without `port` on `flower.port`."""
    watch_lifeline()
    await_broker()
    settings = load()
    from fleet.celery import app

    LocalFlower.allowed_hosts = settings.api.names
    command.Flower = LocalFlower
    folder = settings.data_dir.absolute() / "flower"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    port = settings.flower.port if port is None else port
    try:
        run_celery(app, _arguments(address, port, folder / "history"))
    except OSError as error:
        if error.errno not in _CANNOT_LISTEN:
            raise
        raise FleetError(
            f"Port {port} on {address} cannot be opened ({error.strerror}): end the program that "
            "listens there, or set flower.port to another one."
        ) from error


def _arguments(address: str, port: int, history: Path) -> list[str]:
    return [
        "flower",
        f"--address={address}",
        f"--port={port}",
        # Its API could otherwise shut workers down and send tasks.
        "--read-only=True",
        "--logging=error",
        # Otherwise it runs a flowerconfig.py of the folder.
        f"--conf={os.devnull}",
        "--persistent=True",
        f"--db={history}",
        f"--save-state-interval={SAVE_INTERVAL_MS}",
        f"--max-tasks={TASKS_MAX}",
    ]
