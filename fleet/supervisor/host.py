"""A host: the workers of one machine, of agents and of pools, forked from one warm parent.

The problem: a Celery worker with LiteLLM takes seconds and 190 MB to start. A host may need a
hundred, and must replace a dead worker at once. This process imports everything, freezes it, and
forks: a worker shares its parent's pages and starts in a fraction of a second. The host stays
single-threaded, because a fork copies one thread and every lock that other threads hold.

Deaths arrive as readable pidfds. The dead worker's session is killed, with all that its tools
started, before the replacement starts. When the host itself is killed, its workers get the kernel's
parent-death signal, and a guardian kills their sessions. The guardian also kills a stopped or stuck
worker when its lease runs out.

At SIGHUP the host reads its configuration anew and gives each worker a successor that has it. A
worker goes when its turn has ended, and begins no other until then.

A plain `celery worker` per agent keeps every guarantee too; it only starts slower.
"""

import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from fleet.broker.endpoint import exists
from fleet.config.hidden_modules import check_folder
from fleet.config.settings import Settings, load, read_anew
from fleet.errors import ConfigError, FleetError
from fleet.ledger import bus, starting
from fleet.store import Store, open_store
from fleet.store.address import store_url
from fleet.supervisor.celery_child import await_broker, run_celery
from fleet.supervisor.child import ending
from fleet.supervisor.guardian import start_guardian
from fleet.supervisor.preload import preload
from fleet.supervisor.renewals import renewal
from fleet.supervisor.worker_arguments import worker_argv
from fleet.system.backoff import Backoff
from fleet.system.file_limit import check_file_limit
from fleet.system.hangup import Hangup, Meaning
from fleet.system.lifeline import LIFELINE_FD
from fleet.system.output_guard import redirect_output
from fleet.system.output_pipes import receive_later, receive_outputs, receive_socket
from fleet.system.parent_death import set_parent_death_signal
from fleet.system.process_group import kill_session
from fleet.system.process_tags import ProcessTag, tag_environment
from fleet.worker.state import WORKER, SharedLeaseState
from routing.nearest_name import question

logger = logging.getLogger(__name__)

#: A worker that lived shorter than this has crashed at its start.
CRASH_S = 5.0
#: The first crashes are retried at once.
FREE_CRASHES = 3
BACKOFF = Backoff(1.0, 30.0)
#: Beyond drain_s: time for the worker to close its connections.
STOP_MARGIN_S = 5.0
#: A leaving worker is stopped when it was idle for so long: what it may have claimed has begun.
IDLE_S = 0.1


@dataclass(slots=True)
class _Worker:
    #: The queue that it serves, `agent.NAME` or `pool.NAME`.
    queue: str
    number: int
    crashes: int = 0
    pid: int = 0
    pidfd: int = -1
    born: float = 0.0
    born_at: float = 0.0  #: by the wall clock, as files have it
    #: When to start it again, by the monotonic clock; 0 while it runs.
    due: float = 0.0
    #: It leaves for a successor; without a turn since then, by the monotonic clock; was stopped.
    leaving: bool = False
    idle_since: float = 0.0
    stopped: bool = False
    #: The page of its successor, where that has more or fewer children.
    next_number: int | None = None

    @property
    def name(self) -> str:
        """The agent, or the pool as `pool.NAME`."""
        return self.queue.removeprefix("agent.")


@dataclass(slots=True)
class Host:
    """Runs one worker for each agent and each pool until a stop signal.

    Where agents are `chosen`, only theirs.
    """

    settings: Settings
    chosen: Sequence[str] = ()
    log_level: str = "WARNING"
    _workers: dict[int, _Worker] = field(default_factory=dict)  #: by pidfd
    _waiting: list[_Worker] = field(default_factory=list)
    _stopping: bool = False
    _reload_wanted: bool = False
    _hangup: Hangup = field(default_factory=Hangup)
    #: Its pidfd, and the file descriptor for messages to it.
    _guardian: tuple[int, int] = (-1, -1)
    #: The writing end of each agent's output, by name; where it is missing, the host's own is used.
    _outputs: dict[str, int] = field(default_factory=dict)
    #: Over which those of later agents come.
    _later: socket.socket | None = None
    #: One for each worker, made before the guardian's fork: it sees what a worker writes.
    _pages: list[SharedLeaseState] = field(default_factory=list)

    @property
    def agents(self) -> list[str]:
        """The agents to serve; a chosen one that was removed is left out."""
        known = self.settings.agents
        return [name for name in self.chosen or known if name in known]

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues whose workers run here."""
        return tuple(filter(self.settings.runs_here, self.settings.workers_of(self.agents)))

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or the supervisor's end, then drain; returns the code."""
        self._outputs, self._later = receive_outputs(), receive_socket()
        preload(self.settings, self.agents)
        self._pages = [self._page(queue) for queue in self.queues]
        wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_hangup)
        poll = select.poll()
        poll.register(wake_r, select.POLLIN)
        lifeline = int(os.environ.pop(LIFELINE_FD, "-1"))
        if lifeline >= 0:
            poll.register(lifeline, select.POLLIN | select.POLLHUP)
        self._start_guardian(poll)
        for place, queue in enumerate(self.queues):
            self._start(_Worker(queue, place), poll)
        logger.info("serving %s", ", ".join(self.queues))
        while not self._stopping:
            for fd, _ in poll.poll(self._timeout_ms()):
                if fd == lifeline:
                    self._stopping = True
                elif fd in self._workers:
                    self._reap(self._workers.pop(fd), poll)
                elif fd == self._guardian[0]:
                    logger.warning("the guardian was killed: starting another")
                    self._start_guardian(poll)
                elif fd == wake_r:
                    os.read(wake_r, 64)
            if self._reload_wanted:
                self._reload(poll)
            self._stop_idle()
            for worker in [w for w in self._waiting if w.due <= time.monotonic()]:
                self._waiting.remove(worker)
                self._start(worker, poll)
        self._drain()
        return 0

    def _page(self, queue: str) -> SharedLeaseState:
        return SharedLeaseState(self.settings.processes(queue))

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _on_hangup(self, _number: int, _frame: object) -> None:
        meaning = self._hangup.meaning()
        self._stopping = self._stopping or meaning is Meaning.STOP
        self._reload_wanted = self._reload_wanted or meaning is Meaning.RELOAD

    def _reload(self, poll: select.poll) -> None:
        """Take a changed configuration: the workers that read it, or changed code, leave."""
        self._reload_wanted = False
        served = {worker.queue for worker in (*self._workers.values(), *self._waiting)}
        former = self.settings
        try:
            settings = read_anew(_check)
            preload(settings, list(settings.agents), anew=True)
        except FleetError as error:
            logger.error("the configuration is not taken, and nothing changes: %s", error)
            return
        must_leave = renewal(former, settings)
        self.settings = settings
        if self._later is not None:
            self._outputs |= receive_later(self._later)
        for worker in self._workers.values():
            if worker.queue not in self.queues or must_leave(worker.queue, worker.born_at):
                self._pages[worker.number].leaving = worker.leaving = True
        self._waiting = [worker for worker in self._waiting if worker.queue in self.queues]
        for worker in self._waiting:
            worker.due = 0.0  # what made it crash may be mended
        new = [queue for queue in self.queues if queue not in served]
        resized = self._resize(former)
        numbers = range(len(self._pages), len(self._pages) + len(new))
        self._pages += [self._page(queue) for queue in new]
        if new or resized:  # the guardian must know their pages
            _record_start([name for queue in new for name in settings.served(queue)])
            signal.pidfd_send_signal(self._guardian[0], signal.SIGKILL)
            self._start_guardian(poll)
        for number, queue in zip(numbers, new, strict=True):
            self._start(_Worker(queue, number), poll)

    def _resize(self, former: Settings) -> bool:
        """Give the successors of pools another page where they have more or fewer processes."""
        resized = False
        for worker in (*self._workers.values(), *self._waiting):
            if worker.queue not in self.queues:
                continue
            if self.settings.processes(worker.queue) != former.processes(worker.queue):
                worker.next_number = len(self._pages)
                self._pages.append(self._page(worker.queue))
                resized = True
        return resized

    def _stop_idle(self) -> None:
        """Stop the leaving workers that run no turn."""
        now = time.monotonic()
        for worker in self._leaving():
            # A process that was killed in mid-turn leaves its turn in the page.
            if any(exists(turn.pid) for turn in self._pages[worker.number].turns().values()):
                worker.idle_since = 0.0
            elif not worker.idle_since:
                worker.idle_since = now
            elif now - worker.idle_since >= IDLE_S:
                worker.stopped = True
                os.kill(worker.pid, signal.SIGTERM)

    def _leaving(self) -> list[_Worker]:
        """The workers that have to leave and were not stopped yet."""
        return [one for one in self._workers.values() if one.leaving and not one.stopped]

    def _timeout_ms(self) -> int:
        wait_s = IDLE_S if self._leaving() else 60.0
        soonest = min([time.monotonic() + wait_s, *(worker.due for worker in self._waiting)])
        return max(0, int((soonest - time.monotonic()) * 1000) + 1)

    def _start_guardian(self, poll: select.poll) -> None:
        """Start the guardian, anew when it was killed, and send it the living workers."""
        pidfd, messages = self._guardian
        if pidfd >= 0:
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
        worker.due, worker.born, worker.born_at = 0.0, time.monotonic(), time.time()
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
        if worker.leaving:
            self._replace(worker)
            return
        lived_s = time.monotonic() - worker.born
        code = os.waitstatus_to_exitcode(status)
        worker.crashes = worker.crashes + 1 if lived_s < CRASH_S else 0
        wait_s = 0.0
        if worker.crashes > FREE_CRASHES:
            wait_s = BACKOFF.after_s(worker.crashes - FREE_CRASHES)
        logger.warning(
            "the worker of %s ended with %s after %.1f s; the next starts in %.0f s",
            worker.name,
            ending(code),
            lived_s,
            wait_s,
        )
        if worker.crashes == FREE_CRASHES + 1:
            _alert(worker.name, code)
        worker.due = time.monotonic() + wait_s
        self._waiting.append(worker)

    def _replace(self, worker: _Worker) -> None:
        """Have a worker that left succeeded, unless its agent was removed."""
        logger.info("the worker of %s has left for its successor", worker.name)
        if worker.queue in self.queues:
            number = worker.number if worker.next_number is None else worker.next_number
            self._waiting.append(_Worker(worker.queue, number))

    def _drain(self) -> None:
        """Have every worker finish or release its turn, all at the same time."""
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGTERM)
        deadline = time.monotonic() + self.settings.drain_s + STOP_MARGIN_S
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
            logger.warning("the worker of %s did not stop in time and is killed", worker.name)
            kill_session(worker.pid)

    def _become_worker(self, worker: _Worker) -> NoReturn:
        code = 1
        try:
            os.setsid()
            tag_environment(ProcessTag.WORKER)
            set_parent_death_signal()
            own = self._outputs.pop(worker.queue, None)
            for fd in (*self._guardian, *self._workers, *self._outputs.values()):
                os.close(fd)
            if self._later is not None:
                self._later.close()
            if own is not None:
                redirect_output(own)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            WORKER.use_shared_state(self._pages[worker.number])
            from fleet.celery import app

            run_celery(app, worker_argv(self.settings, worker.queue, self.log_level)[1:])
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
        end = question(unknown[0], settings.agents)
        raise ConfigError(f"agents.{unknown[0]}: not an agent of this fleet{end}")
    _check(settings)
    if (lifeline := os.environ.get(LIFELINE_FD)) is not None:
        await_broker(int(lifeline))
    host = Host(settings, agents, log_level)
    _record_start(host.agents)
    return host.run()


def _record_start(agents: Sequence[str]) -> None:
    """Record that having no worker is no fault of these agents yet."""
    _write("the start of the workers", lambda store: starting.begin(store, agents))


def _check(settings: Settings) -> None:
    """Raise FleetError for what keeps workers from running here."""
    check_folder(settings)
    check_file_limit(sum(map(settings.processes, settings.workers_here)))


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
