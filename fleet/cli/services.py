"""The services of a fleet, each in the foreground: for the Procfile and for containers."""

import asyncio
import os
import signal
import time
from contextlib import suppress

import click

from fleet.cli.base import Command
from fleet.cli.output import note, print_line
from fleet.config.settings import Settings, load
from fleet.errors import BrokerUnavailable
from fleet.formats.redaction import mask_url
from fleet.ledger import removed
from fleet.quiet_log import keep_content_out
from fleet.store import Store, open_store
from fleet.store.address import plain_url, store_url
from fleet.store.connection import reachable, retry_while_away
from fleet.system.lifeline import LIFELINE_FD
from fleet.system.output_guard import guard_output
from tasks.execution import OFFLINE_COMMAND

#: A Procfile's runner stops all processes at once, and workers release their turns through the
#: broker. honcho kills after five seconds.
LINGER_S = 3.0
#: A host starts without an answer of the store.
TELL_S = 1.0


@click.command(cls=Command)
def api() -> None:
    """Serve the HTTP API in the foreground."""
    from fleet.api.server import serve

    guard_output()
    keep_content_out()
    serve(announce=lambda url: print_line(f"The API is {url}", flush=True))


@click.command(cls=Command)
@click.option("--agents", metavar="A,B", default="", help="Only these; all without it.")
def host(agents: str) -> int:
    """Run the agents' workers of this machine, and nothing else."""
    from fleet.supervisor.host import serve

    guard_output()
    keep_content_out()
    if LIFELINE_FD not in os.environ:  # `fleet up` says so itself
        _tell_removed(load())
    return serve([name.strip() for name in agents.split(",") if name.strip()])


def _tell_removed(settings: Settings) -> None:
    # Over a connection of its own that no worker inherits.
    with suppress(BrokerUnavailable):
        store = open_store(store_url(settings), socket_timeout_s=TELL_S, connect_timeout_s=TELL_S)
        try:
            for line in removed.lines(store, settings.agents):
                note(f"fleet: {line}")
        finally:
            store.close()


@click.command(cls=Command)
@click.option("--address", default="127.0.0.1", show_default=True, help="Where it listens.")
def flower(address: str) -> None:
    """Serve Flower on flower.port in the foreground.

    It is read-only, keeps its history in the data folder, and asks for no login.
    """
    from fleet.supervisor.flower import serve

    guard_output()
    keep_content_out()
    serve(address)


@click.command(cls=Command)
def upstream() -> None:
    """Take events from the configured gateway in the foreground.

    Of several in a fleet one does, the others stand by. Without a configured gateway it idles, so
    that one Procfile serves both.
    """
    from fleet.upstream.runner import serve

    guard_output()
    keep_content_out()
    serve(OFFLINE_COMMAND)


@click.command(cls=Command)
@click.option("--url", is_flag=True, help="Print the broker's URL, password and all, and end.")
@click.option("--wait", metavar="S", type=click.FloatRange(min=0), help="Only wait for it.")
def broker(url: bool, wait: float | None) -> None:
    """Run the embedded broker in the foreground.

    With a configured broker_url it idles, so that one Procfile serves both. With --wait it only
    waits for the broker, and fails after S seconds.
    """
    settings = load()
    if wait is not None:
        retry_while_away(lambda: _ping(settings), wait, 0.1)
        return
    if url:
        print_line(plain_url(settings))
        return
    guard_output()
    keep_content_out()
    asyncio.run(_run_embedded(settings) if settings.broker_url is None else _stand_in(settings))


def _ping(settings: Settings) -> None:
    with reachable():
        open_store(store_url(settings)).client.ping()


async def _stand_in(settings: Settings) -> None:
    stop = _signals()
    note(f"fleet: the broker is {mask_url(str(settings.broker_url))}; nothing to run here")
    await stop.wait()


async def _run_embedded(settings: Settings) -> None:
    from fleet.broker.embedded import EmbeddedBroker
    from fleet.supervisor.broker_restart import keep_broker_running
    from fleet.system.data_dir_lock import lock_data_dir

    stop = _signals()
    with lock_data_dir(settings.data_dir):
        embedded = EmbeddedBroker(settings.data_dir, settings.durability, settings.broker_tcp)
        endpoint = await asyncio.to_thread(embedded.start)
        try:
            note(f"fleet: the broker is {mask_url(plain_url(settings))}")
            keeping = asyncio.create_task(keep_broker_running(embedded, note))
            await stop.wait()
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await asyncio.to_thread(_linger, open_store(endpoint.url))
        finally:
            await asyncio.to_thread(embedded.stop)


def _linger(store: Store) -> None:
    """Return when no other client is connected, after LINGER_S at the latest."""
    until = time.monotonic() + LINGER_S
    with suppress(BrokerUnavailable), reachable():
        while len(store.client.client_list(_type="normal")) > 1 and time.monotonic() < until:
            time.sleep(0.05)


def _signals() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop
