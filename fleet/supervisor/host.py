"""A host: the agents' workers of one machine, forked from one warm parent.

The problem: a Celery worker with LiteLLM takes seconds and 190 MB to start. A host may need a
hundred, and must replace a dead worker at once. This process imports everything, freezes it, and
forks: a worker shares its parent's pages and starts in a fraction of a second. The host stays
single-threaded, because a fork copies one thread and every lock that other threads hold.

Deaths arrive as readable pidfds. The dead worker's session is killed, with all that its tools
started, before the replacement starts. When the host itself is killed, its workers get the kernel's
parent-death signal, and a guardian kills their sessions. The guardian also kills a stopped or stuck
worker when its lease runs out.

A plain `celery worker` per agent keeps every guarantee too; it only starts slower.
"""

import gc
import importlib
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from fleet.config.hidden_modules import check_folder
from fleet.config.settings import load
from fleet.errors import ConfigError, FleetError
from fleet.ledger import bus, starting
from fleet.store import Store, open_store
from fleet.store.address import store_url
from fleet.supervisor.celery_child import await_broker, run_celery
from fleet.supervisor.guardian import start_guardian
from fleet.supervisor.output import agent_output
from fleet.system.backoff import Backoff
from fleet.system.file_limit import check_file_limit
from fleet.system.lifeline import LIFELINE_FD
from fleet.system.output_guard import redirect_output
from fleet.system.output_pipes import receive_outputs
from fleet.system.parent_death import set_parent_death_signal
from fleet.system.process_group import kill_session
from fleet.system.process_tags import ProcessTag, tag_environment
from fleet.worker.state import WORKER, SharedLeaseState

logger = logging.getLogger(__name__)

#: Imported by name, because `fleet` knows nothing of `tasks`; `preload` loads the model adapter.
_PRELOAD = (
    "celery.apps.worker",
    "celery.bin.base",
    "celery.bin.worker",
    "celery.concurrency.prefork",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.control",
    "celery.worker.pidbox",
    "celery.worker.strategy",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.app.trace",
    "celery.backends.redis",
    "celery.events.state",
    "celery.fixups.django",
    "celery.loaders.app",
    "kombu.pidbox",
    "kombu.pools",
    "kombu.transport.redis",
    "billiard.popen_fork",
    "billiard.sharedctypes",
    "billiard.synchronize",
    "fleet.worker.commands",
    "fleet.worker.no_delayed_delivery",
    "fleet.worker.reaper",
    "fleet.worker.reconnect",
    "fleet.worker.remote_control",
    "fleet.worker.celery_requests",
    "fleet.worker.task_events",
    "fleet.worker.bootsteps",
    "tasks.dispatch",
    "tasks.intake",
    "tasks.maintenance",
    "tasks.runners.llm",
    "tasks.runners.python",
)
#: Gossip and mingle cost the square of the workers and serve nothing here; a rare heartbeat is
#: enough for Flower.
QUIET = ("--without-mingle", "--without-gossip", "--heartbeat-interval", "20")
#: A worker that lived shorter than this has crashed at its start.
CRASH_S = 5.0
#: The first crashes are retried at once.
FREE_CRASHES = 3
BACKOFF = Backoff(1.0, 30.0)
#: Beyond drain_s: time for the worker to close its connections.
STOP_MARGIN_S = 5.0


@dataclass(slots=True)
class _Worker:
    agent: str
    number: int
    crashes: int = 0
    pid: int = 0
    pidfd: int = -1
    born: float = 0.0
    #: When to start it again, by the monotonic clock; 0 while it runs.
    due: float = 0.0


@dataclass(slots=True)
class Host:
    """Runs one worker for each agent until a stop signal."""

    agents: Sequence[str]
    drain_s: float
    log_level: str = "WARNING"
    _workers: dict[int, _Worker] = field(default_factory=dict)  #: by pidfd
    _waiting: list[_Worker] = field(default_factory=list)
    _stopping: bool = False
    #: Its pidfd, and the file descriptor for messages to it.
    _guardian: tuple[int, int] = (-1, -1)
    #: The writing end of each agent's output, by name; without a supervisor it is the host's own.
    _outputs: dict[str, int] = field(default_factory=dict)
    #: One for each agent, made before any fork: the guardian sees what a worker writes.
    _pages: list[SharedLeaseState] = field(default_factory=list)

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or the supervisor's end, then drain; returns the code."""
        self._outputs = receive_outputs()
        _preload(self.agents)
        self._pages = [SharedLeaseState() for _ in self.agents]
        wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        poll = select.poll()
        poll.register(wake_r, select.POLLIN)
        lifeline = int(os.environ.pop(LIFELINE_FD, "-1"))
        if lifeline >= 0:
            poll.register(lifeline, select.POLLIN | select.POLLHUP)
        self._start_guardian(poll)
        for place, agent in enumerate(self.agents):
            self._start(_Worker(agent, place), poll)
        logger.info("serving %s", ", ".join(self.agents))
        while not self._stopping:
            for fd, _ in poll.poll(self._timeout_ms()):
                if fd == lifeline:
                    self._stopping = True
                elif fd in self._workers:
                    self._reap(self._workers.pop(fd), poll)
                elif fd == self._guardian[0]:
                    self._start_guardian(poll)
            for worker in [w for w in self._waiting if w.due <= time.monotonic()]:
                self._waiting.remove(worker)
                self._start(worker, poll)
        self._drain()
        return 0

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _timeout_ms(self) -> int:
        soonest = min((worker.due for worker in self._waiting), default=time.monotonic() + 60)
        return max(0, int((soonest - time.monotonic()) * 1000) + 1)

    def _start_guardian(self, poll: select.poll) -> None:
        """Start the guardian, anew when it was killed, and send it the living workers."""
        pidfd, messages = self._guardian
        if pidfd >= 0:
            logger.warning("the guardian was killed: starting another")
            poll.unregister(pidfd)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            os.close(pidfd)
            os.close(messages)
        pid, messages = start_guardian(self._pages)
        self._guardian = os.pidfd_open(pid), messages
        poll.register(self._guardian[0], select.POLLIN)
        for worker in self._workers.values():
            self._notify_guardian(b"+%d %d\n" % (worker.pid, worker.number))

    def _notify_guardian(self, message: bytes) -> None:
        with suppress(BrokenPipeError):  # its replacement gets all sessions
            os.write(self._guardian[1], message)

    def _start(self, worker: _Worker, poll: select.poll) -> None:
        worker.due, worker.born = 0.0, time.monotonic()
        self._pages[worker.number].clear()
        worker.pid = os.fork()
        if not worker.pid:
            self._become_worker(worker)
        worker.pidfd = os.pidfd_open(worker.pid)
        self._workers[worker.pidfd] = worker
        poll.register(worker.pidfd, select.POLLIN)
        self._notify_guardian(b"+%d %d\n" % (worker.pid, worker.number))

    def _reap(self, worker: _Worker, poll: select.poll) -> None:
        poll.unregister(worker.pidfd)
        os.close(worker.pidfd)
        _, status = os.waitpid(worker.pid, 0)
        kill_session(worker.pid)
        self._notify_guardian(b"-%d 0\n" % worker.pid)
        lived_s = time.monotonic() - worker.born
        code = os.waitstatus_to_exitcode(status)
        worker.crashes = worker.crashes + 1 if lived_s < CRASH_S else 0
        wait_s = 0.0
        if worker.crashes > FREE_CRASHES:
            wait_s = BACKOFF.after_s(worker.crashes - FREE_CRASHES)
        logger.warning(
            "the worker of %s ended with %d after %.1f s; the next starts in %.0f s",
            worker.agent,
            code,
            lived_s,
            wait_s,
        )
        if worker.crashes == FREE_CRASHES + 1:
            _alert(worker.agent, code)
        worker.due = time.monotonic() + wait_s
        self._waiting.append(worker)

    def _drain(self) -> None:
        """Have every worker finish or release its turn, all at the same time."""
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGTERM)
        deadline = time.monotonic() + self.drain_s + STOP_MARGIN_S
        running = dict(self._workers)
        poll = select.poll()
        for fd in running:
            poll.register(fd, select.POLLIN)
        while running and time.monotonic() < deadline:
            for fd, _ in poll.poll(max(1, int((deadline - time.monotonic()) * 1000))):
                worker = running.pop(fd)
                poll.unregister(fd)
                os.waitpid(worker.pid, 0)
                kill_session(worker.pid)
        for worker in running.values():
            logger.warning("the worker of %s did not stop in time and is killed", worker.agent)
            kill_session(worker.pid)

    def _become_worker(self, worker: _Worker) -> NoReturn:
        code = 1
        try:
            os.setsid()
            tag_environment(ProcessTag.WORKER)
            set_parent_death_signal()
            own = self._outputs.pop(agent_output(worker.agent), None)
            for fd in (*self._guardian, *self._workers, *self._outputs.values()):
                os.close(fd)
            if own is not None:
                redirect_output(own)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            WORKER.use_shared_state(self._pages[worker.number])
            from fleet.celery import app

            run_celery(app, worker_argv(worker.agent, self.log_level)[1:])
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if isinstance(error.code, str):
                sys.stderr.write(f"{error.code}\n")
        finally:
            sys.stderr.flush()
            os._exit(code)


def serve(agents: Sequence[str] = (), log_level: str = "WARNING") -> int:
    """Run the workers of `agents`, by default of all, until a stop signal.

    Raises ConfigError for an unknown agent, BrokerUnavailable when no broker runs.
    """
    settings = load()
    unknown = [name for name in agents if name not in settings.agents]
    if unknown:
        raise ConfigError(f"agents.{unknown[0]}: not an agent of this fleet; see `fleet agents`.")
    check_folder(settings)
    check_file_limit(len(agents or settings.agents))
    if (lifeline := os.environ.get(LIFELINE_FD)) is not None:
        await_broker(int(lifeline))
    names = agents or list(settings.agents)
    _write("the start of the workers", lambda store: starting.begin(store, names))
    return Host(names, settings.drain_s, log_level).run()


def worker_argv(agent: str, log_level: str = "WARNING") -> list[str]:
    """The arguments of one agent's Celery worker, `celery` first."""
    return [
        "celery",
        "worker",
        "-Q",
        f"agent.{agent}",
        "-c",
        "1",
        "-n",
        f"{agent}@%h",
        "-P",
        "prefork",
        *QUIET,
        "-l",
        log_level,
    ]


def _preload(agents: Sequence[str]) -> None:
    # Imports make objects that stay, and hardly any garbage: collecting takes a tenth of the time.
    gc.disable()
    for name in _PRELOAD:
        importlib.import_module(name)
    app = importlib.import_module("fleet.celery").app
    app.loader.import_default_modules()
    app.finalize()
    # Reads the entry points of every package installed, and is kept.
    _ = app.backend
    # Makes the parser of C with which each pool's child sets this signal.
    with suppress(OSError):
        importlib.import_module("billiard.util").get_pdeathsig()
    settings = load()
    # Seconds of imports, which only agents with a model need.
    preload = importlib.import_module("tasks.execution.preload").preload
    preload([settings.agents[name] for name in agents])
    if any(settings.uses_tool_servers(name) for name in agents):
        importlib.import_module("fleet.tools.mcp.server")
    if threading.active_count() > 1:
        raise FleetError(f"A host must fork from one thread; running are {threading.enumerate()}.")
    gc.freeze()
    gc.enable()


def _alert(agent: str, code: int) -> None:
    """Put the crash loop on the bus."""
    sentence = f"the worker of {agent} keeps ending with {code}"
    _write(f"the crash loop of {agent}", lambda store: bus.alert(store, "crash_loop", sentence))


def _write(subject: str, write: Callable[[Store], None]) -> None:
    """Write to the store, over a connection of its own that no fork inherits."""
    try:
        store = open_store(store_url(load()), bus_max_length=load().bus.max_length)
        try:
            write(store)
        finally:
            store.close()
    except FleetError as error:
        logger.warning("%s could not be put into the store: %s", subject, error)
