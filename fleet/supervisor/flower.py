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

from fleet.config.foreign_environment import of_flower
from fleet.config.settings import load
from fleet.errors import FleetError
from fleet.formats.host_names import SAFE_METHODS, is_allowed, is_foreign_origin
from fleet.supervisor.celery_child import await_broker, run_celery
from fleet.system.lifeline import watch_lifeline

#: What Flower keeps, in memory and on disk; about 5 KB each.
TASKS_MAX = 10_000
NEVER_S = 10**9
SAVE_INTERVAL_MS = 30_000

_CANNOT_LISTEN = frozenset({EACCES, EADDRINUSE, EADDRNOTAVAIL})


class LocalFlower(Flower):
    """A Flower that refuses the requests of foreign pages."""

    allowed_hosts: Collection[str] = ()

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate:
        """The handler of a request; Tornado calls this before anything of Flower sees it."""
        origin = request.headers.get("Origin")
        changes = request.method not in SAFE_METHODS or "Upgrade" in request.headers
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


def serve(address: str) -> NoReturn:
    """Run Flower on `flower.port` until a signal, or the end of the supervisor."""
    watch_lifeline()
    await_broker()
    settings = load()
    from fleet.celery import app

    # It looks for lost messages as workers do, but is none: it may not put one back.
    options = app.conf.broker_transport_options
    if "visibility_timeout" in options:
        app.conf.broker_transport_options = {**options, "visibility_timeout": NEVER_S}
    LocalFlower.allowed_hosts = settings.api.names
    command.Flower = LocalFlower
    for variable in of_flower():
        del os.environ[variable]
    folder = settings.data_dir.absolute() / "flower"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    port = settings.flower.port
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
