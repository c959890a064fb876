"""Serving the API in the foreground: the address, the signals, and a stop within two seconds."""

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from fleet.api.app import create_api
from fleet.api.client_warnings import RepeatLimit, log_accept_error
from fleet.api.connections import Connections, bounded
from fleet.auth import tokens
from fleet.config.listen_address import others_can_reach
from fleet.config.settings import Settings, load
from fleet.errors import BrokerUnavailable, ConfigError
from fleet.runtime import Runtime
from fleet.store.address import store_url
from fleet.system.api_address import forget_address, write_address
from fleet.system.file_limit import raise_file_limit
from fleet.system.lifeline import watch_lifeline
from fleet.system.listener import BACKLOG, inherited, listen
from tasks.execution import OFFLINE_COMMAND

#: Requests that take longer are cut off; clients of the bus leave at once.
GRACE_S = 1
#: Accepted in a row before others have their turn; asyncio fails as often where no file is left.
ACCEPTS_MAX = 64
#: The largest message of a WebSocket client, which has nothing to say; beyond it, code 1009.
CLIENT_FRAME_BYTES_MAX = 64 * 1024
PUBLISH_RETRY_DELAY_S = 5.0

_log = logging.getLogger(__name__)


def serve(
    host: str | None = None,
    port: int | None = None,
    *,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. Call it in the main thread.

    Host and port default to the configuration; port 0 picks a free port. A socket that a supervisor
    passed on comes before them. `announce` gets the
    address once requests are served. Raises ConfigError for an address that others can reach while
    there is no token, and FleetError when the port cannot be opened.
    """
    watch_lifeline()
    raise_file_limit()
    settings = load()
    runtime = Runtime(settings, guarded=True, spools=True, offline_command=OFFLINE_COMMAND)
    host = settings.api.host if host is None else host
    port = settings.api.port if port is None else port
    _check_exposure(host, runtime)
    _check_store(settings)
    listener = inherited() or listen(host, port)
    with listener:
        url = _url(listener)
        connections = Connections(settings.api)
        app = create_api(runtime, host=host)
        server = _Server(app, connections, lambda: _started(settings, url, announce))
        # Uvicorn raises a signal again after its shutdown: it must not kill the process.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.stop)
        try:
            server.run([listener])
        finally:
            with suppress(OSError):  # a stale address only leads to a refused connection
                forget_address(settings.data_dir)


class _Server(uvicorn.Server):
    """Uvicorn with a callback once it serves; it disconnects bus clients before it waits."""

    def __init__(
        self, app: Starlette, connections: Connections, started: Callable[[], None]
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                lifespan="on",
                server_header=False,
                proxy_headers=False,
                ws_per_message_deflate=False,
                ws_max_size=CLIENT_FRAME_BYTES_MAX,
                timeout_graceful_shutdown=GRACE_S,
                backlog=ACCEPTS_MAX,
                **bounded(connections),
            )
        )
        self._started = started
        self._connections = connections
        self._sweeper: asyncio.Task[None] | None = None
        self._hub = app.state.hub
        self._live_text = app.state.live_text
        self._mcp = app.state.mcp

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call back once requests are served."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(log_accept_error)
        for name in ("uvicorn.error", Connections.__module__, RepeatLimit.__module__):
            logging.getLogger(name).addFilter(RepeatLimit())
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # asyncio has made it ACCEPTS_MAX
        self._sweeper = loop.create_task(self._connections.sweep())
        if self.started:
            self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down; first disconnect the long-lived clients, which would not leave."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._hub.close()
        self._live_text.close()
        self._mcp.begin_shutdown()
        await super().shutdown(sockets)

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Stop in order, also on a signal before the server runs."""
        self.should_exit = True


def _started(settings: Settings, url: str, announce: Callable[[str], None] | None) -> None:
    _publish_address(settings, url)
    if announce is not None:
        announce(url)


def _publish_address(settings: Settings, url: str) -> None:
    """Write the API's address; retry while the disk is full."""
    try:
        write_address(settings.data_dir, url)
    except OSError as error:
        _log.warning(
            "%s cannot be written (%s): the API serves, but commands cannot find it yet",
            settings.data_dir,
            error.strerror,
        )
        retry = threading.Timer(PUBLISH_RETRY_DELAY_S, _publish_address, (settings, url))
        retry.daemon = True
        retry.start()


def _check_exposure(host: str, runtime: Runtime) -> None:
    """Raise ConfigError for a reachable address without any token.

    While the broker is down the API starts all the same, and admits nobody until it has the tokens.
    """
    if runtime.settings.api.trusted_network or not others_can_reach(host):
        return
    try:
        with_tokens = bool(tokens.read_all(runtime.store))
    except BrokerUnavailable:
        return
    if not with_tokens:
        raise ConfigError(
            f"api.host: others can reach {host}, and there is no token yet: `fleet token create` "
            "one while the fleet runs on 127.0.0.1, or set api.trusted_network = true where the "
            "network lets only you in."
        )


def _check_store(settings: Settings) -> None:
    """Raise ConfigError for a setting without a store; a broker that is down may still come."""
    try:
        store_url(settings)
    except BrokerUnavailable as error:
        _log.warning("The API starts without its broker: %s", error)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
