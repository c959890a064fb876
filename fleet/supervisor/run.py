"""The whole fleet on one machine: what `fleet up` runs, and `fleet demo` for a minute."""

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from fleet.broker.audit import audit
from fleet.broker.embedded import EmbeddedBroker
from fleet.broker.room import lack_of_room
from fleet.config.hidden_modules import check_folder
from fleet.config.settings import Settings
from fleet.errors import BrokerUnavailable, FleetError
from fleet.ledger import bus, processes, removed, starting
from fleet.store import Store, open_store
from fleet.store.address import store_url
from fleet.store.connection import reachable
from fleet.supervisor.broker_restart import keep_broker_running
from fleet.supervisor.processes import Addresses, fleet_processes
from fleet.supervisor.reload import Check, Reloads
from fleet.supervisor.running_config import RunningConfig
from fleet.supervisor.supervise import Supervisor
from fleet.system.data_dir_lock import lock_data_dir, unusable
from fleet.system.file_limit import check_file_limit
from fleet.system.listener import listen
from fleet.system.outgoing import unusable_variables
from fleet.system.reload_answer import forget_answer

#: Called once, when every process that events need is ready; an error in it stops the fleet and
#: leaves `run_fleet`.
OnReady = Callable[[Addresses], Coroutine[Any, Any, None]]
Report = Callable[[str], None]


def _nothing(_line: str) -> None:
    """Report nothing."""


def _any(_settings: Settings) -> list[str]:
    """Accept every configuration."""
    return []


#: Between looks at what keeps ending.
FAILING_POLL_S = 1.0


def run_fleet(
    settings: Settings,
    *,
    report: Report,
    on_ready: OnReady,
    progress: Report = _nothing,
    check: Check = _any,
) -> int:
    """Run the whole fleet until SIGINT, SIGTERM or the end of `on_ready`.

    Everything it started has ended when it returns: 0, or 130 when a second signal had to kill.
    Warnings of the processes go to `report`, everything they print to `data_dir/log`; a line for
    each agent that is ready goes to `progress`. Raises FleetError when it cannot start: `check` or
    another check refuses the configuration, the data folder or a port is taken, the folder or the
    broker cannot be used, a process is never ready.
    """
    for warning in _check(settings, check):
        report(f"fleet: {warning}")
    with _sigterm_interrupts(), lock_data_dir(settings.data_dir):
        addresses = Addresses.choose(settings)
        for told in unusable_variables():
            report(f"fleet: {told}. Calls that need it fail.")
        count = len(settings.agents)
        progress(f"fleet: starting {count} agent{'s' if count > 1 else ''} ...")
        config = RunningConfig()
        config.publish()
        embedded = None
        if settings.broker_url is None:
            embedded = EmbeddedBroker(settings.data_dir, settings.durability, settings.broker_tcp)
            embedded.start()
        try:
            store = open_store(store_url(settings), bus_max_length=settings.bus.max_length)
            _check_room(store, settings)
            if embedded is None:
                _validate_broker(store, report)
            elif embedded.adopted:
                report(f"broker: still running since the last time, pid {embedded.pid}")
            starting.begin(store, settings.agents, beat=True)
            for line in removed.lines(store, settings.agents):
                report(f"fleet: {line}")
            whom = _Told(report, progress, on_ready, partial(_check, check=check))
            with listen(addresses.api_host, addresses.api_port) as listener:
                parts = config, addresses, store, listener.fileno(), embedded
                return asyncio.run(_supervise(*parts, whom))
        finally:
            with suppress(OSError):  # `fleet reload` sees that its process has gone
                forget_answer(settings.data_dir)
            if embedded is not None:
                embedded.stop()


def _check(settings: Settings, check: Check) -> list[str]:
    check_folder(settings)
    check_file_limit(sum(map(settings.processes, settings.workers_here)))
    return check(settings)


@dataclass(frozen=True, slots=True)
class _Told:
    """The callbacks of whoever runs the fleet."""

    report: Report
    progress: Report
    on_ready: OnReady
    check: Check


async def _supervise(
    config: RunningConfig,
    addresses: Addresses,
    store: Store,
    listener: int,
    embedded: EmbeddedBroker | None,
    told: _Told,
) -> int:
    stop, began, report = asyncio.Event(), time.monotonic(), told.report
    settings = config.settings

    async def when_ready() -> None:
        await supervisor.ready.wait()
        await told.on_ready(addresses)
        stop.set()

    def agent_ready(name: str) -> None:
        told.progress(f"fleet: {name} is ready after {time.monotonic() - began:.1f} s")

    hooks: list[Callable[[], Coroutine[None, None, None]]] = [
        when_ready,
        lambda: _report_failing(store, supervisor),
        lambda: reloads.run(),
    ]
    if embedded is not None:
        hooks.append(partial(keep_broker_running, embedded, lambda line: report(f"broker: {line}")))
    supervisor = Supervisor(
        fleet_processes(settings, addresses, store, listener, agent_ready),
        sink=_Echo(report),
        log_dir=settings.data_dir / "log",
        on_crash_loop=partial(_alert, store, report),
        on_reload=lambda: reloads.request(),
        hooks=hooks,
    )
    reloads = Reloads(config, addresses, store, listener, supervisor, told.check, report)
    try:
        return await supervisor.run(stop)
    except OSError as error:
        raise unusable(settings.data_dir, error) from error


class _Echo:
    """Passes on the warnings of the processes, each as one line; the rest is in the logs."""

    #: Celery `[2026-11-21 10:00:00,123: INFO/Main] `, Flower `[I 261121 ...] `, uvicorn `INFO: `.
    _LEVEL = re.compile(
        r"\[\S+ \S+ (?P<celery>[A-Z]+)/|\[(?P<tornado>[DIWEC]) \d|(?P<uvicorn>[A-Z]+): "
    )
    _QUIET = frozenset({"DEBUG", "INFO", "D", "I"})
    #: The supervisor's own lines, and the error of a process that cannot start.
    _ALWAYS = re.compile(
        r"ended with .* starts again|the worker of \S+ ended with|still runs|its log cannot|"
        r"fleet: |breaker |the spool "
    )

    def __init__(self, report: Report) -> None:
        self._report = report

    def __call__(self, name: str, line: str) -> None:
        level = self._LEVEL.match(line)
        if (level and not self._QUIET & {*level.groups()}) or self._ALWAYS.match(line):
            self._report(f"{name}: {line}")


def _validate_broker(store: Store, report: Report) -> None:
    """Audit the operator's broker. Raises FleetError for one that would lose events."""
    with reachable():
        findings = audit(store.client)
    for finding in findings:
        remedy = f" Remedy: {finding.remedy}." if finding.remedy else ""
        if finding.level == "error":
            raise FleetError(f"fleet.broker_url: {finding.what}.{remedy}")
        if finding.level == "warning":
            report(f"broker: {finding.what}.{remedy}")


def _check_room(store: Store, settings: Settings) -> None:
    """Raise FleetError for a broker that takes fewer clients than this fleet needs."""
    with reachable():
        if fault := lack_of_room(store.client, sum(map(settings.processes, settings.workers_here))):
            raise FleetError(f"fleet.broker_url: {fault[0]}; {fault[1]}.")


def _alert(store: Store, report: Report, name: str, code: int) -> None:
    sentence = f"{name} keeps ending with {code}; its log is in the data folder"
    report(sentence)
    try:
        # Its end is told by the alerter, which knows it from `fleet.ledger.processes`.
        bus.alert(store, "crash_loop", sentence, "open")
    except BrokerUnavailable as error:
        report(f"this could not be put on the bus: {error}")


async def _report_failing(store: Store, supervisor: Supervisor) -> None:
    """Keep `/health` informed about processes that keep ending, until cancelled."""
    host = f"{socket.gethostname()}:{os.getpid()}"
    told: dict[str, str] = {}
    due = 0.0
    while True:
        now = supervisor.failing
        if now != told or (now and time.monotonic() > due):
            try:
                await asyncio.to_thread(processes.record_failing, store, host, now)
                told, due = now, time.monotonic() + processes.STALE_S / 3
            except BrokerUnavailable:
                pass  # told with the next try; the log has it
        await asyncio.sleep(FAILING_POLL_S)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C while the broker starts and stops."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        with suppress(ValueError, TypeError):
            signal.signal(signal.SIGTERM, before)
