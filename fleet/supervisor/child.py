"""One supervised process: started, watched, restarted, stopped together with its session."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from fleet.errors import FleetError
from fleet.supervisor.output import Output, lines_of
from fleet.system.backoff import Backoff
from fleet.system.environments import SECRETS_FD, secrets_file, without_secrets
from fleet.system.lifeline import LIFELINE_FD
from fleet.system.output_pipes import LATER_FD, OUTPUTS_FD, outputs_text, send_later
from fleet.system.process_group import kill_session

#: A process that lived this long did not crash at its start; its back-off begins anew.
STEADY_S = 60.0
#: Between the end of a process and its next start.
BACKOFF = Backoff(0.1, 30.0, jitter=(0.75, 1.25))
#: That many deaths within STEADY_S of their start, in a row, are a crash loop (about 3 s of them).
CRASH_LOOP = 5
#: So many are told in `/health`.
FAILING = 2
READY_POLL_S = 0.05
#: The longest wait for the output's end: a grandchild outside the session may hold it open.
OUTPUT_TIMEOUT_S = 1.0
#: A shell's exit code for a program that cannot be started.
COMMAND_NOT_FOUND = 127


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process of the fleet, and what its supervisor promises it."""

    name: str
    argv: Sequence[str]
    #: Started in rising order, each stage when the one before is ready; stopped in falling order.
    stage: int
    #: It runs turns, so it gets the secrets of the supervisor's environment.
    runs_turns: bool = False
    #: It starts a process that runs turns, and passes on the file that holds them.
    starts_turns: bool = False
    #: Open files that it inherits, by their numbers.
    files: Sequence[int] = ()
    #: On top of the supervisor's own environment.
    env: Mapping[str, str] = field(default_factory=dict)
    #: Polled while the process lives; None: ready once started.
    ready: Callable[[], Awaitable[bool]] | None = None
    ready_timeout_s: float = 30.0
    #: Sent to the process alone, not to its children.
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace_s: float = 10.0
    #: It reads a changed configuration at this signal; another process starts anew for that.
    reload_signal: signal.Signals | None = None
    restart: bool = True
    #: Names of outputs of its parts; it gets a pipe for each (`fleet.system.output_pipes`).
    outputs: Sequence[str] = ()
    #: Nothing needs it: it is never waited for, and why it ended is told with its last line.
    viewer: bool = False


@dataclass(frozen=True, slots=True)
class _Pipe:
    """The reading end of an output, which one life of a process writes to."""

    output: Output
    stream: asyncio.StreamReader
    reader: asyncio.ReadTransport

    @classmethod
    async def open(cls, output: Output, writers: list[int]) -> "_Pipe":
        """Make one; its writing end is added to `writers`."""
        # Not asyncio's: with that, `wait` would wait for whoever inherited the output.
        reading, writing = os.pipe()
        writers.append(writing)
        stream = asyncio.StreamReader()
        reader, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reading, "rb", 0)
        )
        return cls(output, stream, reader)


class Child:
    """Keeps one process of `spec` running until `stopping` is set."""

    def __init__(
        self,
        spec: ProcessSpec,
        *,
        lifeline: int,
        output: Output,
        parts: Sequence[Output] = (),
        on_crash_loop: Callable[[str, int], None],
    ) -> None:
        """`output` takes the process's lines, `parts` those of its parts."""
        self.spec = spec
        self.stopping = asyncio.Event()
        #: The last line it printed, for the sentence that says why it failed.
        self.last_line = "it printed nothing"
        #: Its deaths within STEADY_S of their start, in a row.
        self.crashes = 0
        self._lifeline = lifeline
        self._output, self._parts = output, list(parts)
        #: For pipes of parts that are added while it lives, and those pipes.
        self._socket: socket.socket | None = None
        self._later: dict[asyncio.Task[None], _Pipe] = {}
        self._on_crash_loop = on_crash_loop
        self._process: asyncio.subprocess.Process | None = None
        self._grace_s = spec.stop_grace_s
        self._started = False
        self._born = 0.0
        self._end = ""  #: of its last life
        self._over: str | None = None
        #: Set to have the process end in order and start again, and when it has started.
        self._renewing, self._renewed = asyncio.Event(), asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process that lives now, or None between two lives."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def trouble(self) -> str | None:
        """Why it counts as failing, until it has lived for STEADY_S again; None when well."""
        lived_s = time.monotonic() - self._born
        if self.crashes < FAILING or (self.pid is not None and lived_s > STEADY_S):
            return None
        return f"ended with {self._end}, {self.crashes} times in a row"

    async def run(self) -> None:
        """Live until `stopping` is set, or until the first end where the spec says so."""
        while not self.stopping.is_set():
            born = self._born = time.monotonic()
            code = await self._live()
            end = ending(code)
            if self.stopping.is_set() or not self.spec.restart:
                self._over = end
                self._report(f"ended with {end}")
                return
            if self._renewing.is_set():
                self.crashes = 0
                self._report(f"ended with {end}, starts with the changed configuration")
                continue
            if time.monotonic() - born > STEADY_S:
                self.crashes = 0
            self.crashes += 1
            told = self.spec.viewer and code > 0
            self._end = f"{end} ({self.last_line})" if told else end
            if self.crashes == CRASH_LOOP:
                self._on_crash_loop(self.spec.name, code)
            pause_s = BACKOFF.after_s(self.crashes)
            self._report(f"ended with {self._end}, starts again in {pause_s:.1f} s")
            await _first(self.stopping, self._renewing, timeout_s=pause_s)

    async def wait_ready(self) -> None:
        """Return when the process is ready; FleetError when it ended, crashes or takes too long.

        Returns at once for a viewer.
        """
        if self.spec.viewer:
            return
        until = time.monotonic() + self.spec.ready_timeout_s
        while not await self._is_ready(until):
            if self._over:
                raise self._failure(f"ended with {self._over} before it was ready")
            if self.crashes >= CRASH_LOOP:
                raise self._failure(f"ended {self.crashes} times before it was ready")
            if time.monotonic() > until:
                raise self._failure(f"was not ready within {self.spec.ready_timeout_s:g} s")
            await asyncio.sleep(READY_POLL_S)

    @property
    def parts(self) -> frozenset[str]:
        """The names of the outputs of its parts."""
        return frozenset(output.name for output in self._parts)

    async def renew(self, spec: ProcessSpec, added: Sequence[Output] = ()) -> None:
        """Have the process read a changed configuration, and be as `spec` from now on.

        `added` are the outputs of parts that it has from now on. Returns when it was sent its
        signal, or has started anew; `wait_ready` waits for the rest.
        """
        self.spec, self._grace_s = spec, spec.stop_grace_s
        self.crashes = 0  # under another configuration
        self._parts += added
        if spec.reload_signal is not None and self.pid is not None:
            for output in added:
                await self._add_pipe(output)
            os.kill(self.pid, spec.reload_signal)
            return
        self._renewed.clear()
        self._renewing.set()
        await _first(
            self._renewed, self.stopping, timeout_s=spec.stop_grace_s + spec.ready_timeout_s
        )

    async def _add_pipe(self, output: Output) -> None:
        """Give the living process one more pipe; without it the part writes to the others' log."""
        writers: list[int] = []
        try:
            pipe = await _Pipe.open(output, writers)
            self._later[asyncio.create_task(self._read(pipe))] = pipe
            if self._socket is not None:
                send_later(self._socket, output.name, writers[0])
        except OSError as error:
            self._report(f"{output.name} has no log of its own ({error.strerror or error})")
        finally:
            for fd in writers:
                os.close(fd)

    def kill(self) -> None:
        """Kill the process and its session, for good."""
        self._grace_s = 0.0
        self.stopping.set()
        if (pid := self.pid) is not None:
            kill_session(pid)

    async def _is_ready(self, until: float) -> bool:
        if self.spec.ready is None:
            return self._started
        if self.pid is None:
            return False
        try:
            async with asyncio.timeout(max(until - time.monotonic(), 0.0)):
                return await self.spec.ready()
        except TimeoutError:
            return False

    def _failure(self, what: str) -> FleetError:
        return FleetError(f"{self.spec.name} {what}: {self.last_line}")

    async def _live(self) -> int:
        """Run the process once, to the end of its session; returns the exit code."""
        try:
            process, pipes = await self._spawn()
        except OSError as error:
            self.last_line = f"{self.spec.argv[0]} cannot be started ({error.strerror or error})"
            return COMMAND_NOT_FOUND
        self._process, self._started = process, True
        self._renewing.clear()
        self._renewed.set()
        self._report(f"started, pid {process.pid}")
        reading = asyncio.create_task(self._read_all(pipes))
        ended = asyncio.create_task(process.wait())
        stop_requested = asyncio.create_task(_first(self.stopping, self._renewing))
        try:
            await asyncio.wait(
                {ended, stop_requested, reading}, return_when=asyncio.FIRST_COMPLETED
            )
            if reading.done():
                reading.result()  # without an error it has only closed its output
                await asyncio.wait({ended, stop_requested}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await self._request_stop(process, ended)
        finally:
            stop_requested.cancel()
            # Also a pool's children that outlived their parent.
            kill_session(process.pid)
            code = await ended
            await asyncio.wait({reading, *self._later}, timeout=OUTPUT_TIMEOUT_S)
            for task in (reading, *self._later):
                task.cancel()
            for pipe in (*pipes, *self._later.values()):
                pipe.reader.close()
            self._later.clear()
            if self._socket is not None:
                self._socket.close()
        return code

    async def _spawn(self) -> tuple[asyncio.subprocess.Process, list[_Pipe]]:
        pipes: list[_Pipe] = []
        files: list[int] = []
        try:
            for output in (self._output, *self._parts):
                pipes.append(await _Pipe.open(output, files))  # noqa: PERF401 - closed on failure
            own, *parts = files
            env = self._environment(files, parts)
            process = await asyncio.create_subprocess_exec(
                *self.spec.argv,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=own,
                stderr=own,
                start_new_session=True,
                pass_fds=[self._lifeline, *self.spec.files, *files[1:]],
            )
        except OSError:
            for pipe in pipes:
                pipe.reader.close()
            raise
        finally:
            for fd in files:
                os.close(fd)
        return process, pipes

    def _environment(self, files: list[int], parts: Sequence[int]) -> dict[str, str]:
        """The process's environment; a file that it names is added to `files`."""
        own = dict(os.environ) if self.spec.runs_turns else without_secrets()
        if self.spec.starts_turns:
            files.append(secrets_file())
            own[SECRETS_FD] = str(files[-1])
        if parts:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            files.append(theirs.detach())
            own[LATER_FD] = str(files[-1])
            names = (output.name for output in self._parts)
            own[OUTPUTS_FD] = outputs_text(dict(zip(names, parts, strict=True)))
        return {**own, "PYTHONUNBUFFERED": "1", **self.spec.env, LIFELINE_FD: str(self._lifeline)}

    async def _read_all(self, pipes: Sequence[_Pipe]) -> None:
        await asyncio.gather(*(self._read(pipe) for pipe in pipes))

    async def _read(self, pipe: _Pipe) -> None:
        async for line in lines_of(pipe.stream):
            self.last_line = line.strip() or self.last_line
            pipe.output.write(line)

    async def _request_stop(
        self, process: asyncio.subprocess.Process, ended: "asyncio.Task[int]"
    ) -> None:
        with suppress(ProcessLookupError):
            # Not `process.send_signal`: it polls first, and a process that has just ended is then
            # reaped before asyncio can, which never learns its exit code.
            os.kill(process.pid, self.spec.stop_signal)
        await asyncio.wait({ended}, timeout=self._grace_s)
        if not ended.done():
            self._report(f"still runs {self._grace_s:g} s after its stop signal: killed")

    def _report(self, line: str) -> None:
        self._output.write(line)


async def _first(*events: asyncio.Event, timeout_s: float | None = None) -> None:
    """Return when one of the events is set, or after `timeout_s`."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def ending(code: int) -> str:
    """An exit code in words: `exit code 3`, `SIGKILL`."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
