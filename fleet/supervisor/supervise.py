"""The supervisor of `fleet up`: processes started stage by stage, kept running, stopped in order.

Why not an existing one: honcho ends everything when one process ends, knows no readiness and gives
five seconds to stop. What holds here, in every order of events:

* a stage starts when each process of the stage before is ready;
* a process that ends is started again, with growing pauses while it keeps ending at once;
* stopping goes backwards through the stages: the stop signal, then SIGKILL for the whole session;
* each child has its own session, so that Ctrl-C reaches the supervisor alone;
* no child outlives the supervisor, killed by SIGKILL or not (`fleet.system.lifeline`).
"""

import asyncio
import os
import signal
from collections.abc import Callable, Container, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path

from fleet.supervisor.child import Child, ProcessSpec
from fleet.supervisor.output import LogFile, Output, log_path
from fleet.system.hangup import Hangup, Meaning

__all__ = ["ProcessSpec", "Supervisor"]

#: Gets each line of each process: its name and the line. Must not block, and not raise.
Sink = Callable[[str, str], None]
#: Runs in the supervisor's own loop from before the first stage until after the last.
Hook = Callable[[], Coroutine[None, None, None]]

#: A shell's exit code for a program that Ctrl-C ended.
KILLED_EXIT = 130


class Supervisor:
    """Runs `specs` once. Lines go to `sink` and to `log_dir/<name>.log`, as do those of its parts.

    `on_crash_loop(name, exit code)` is called once for each crash loop, which goes on with longer
    pauses. `on_reload` is called at SIGHUP and SIGUSR2. A hook that raises stops the fleet as an
    operator would, and its error leaves `run`.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        *,
        sink: Sink,
        log_dir: Path,
        on_crash_loop: Callable[[str, int], None] = lambda _name, _code: None,
        on_reload: Callable[[], None] = lambda: None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self._specs = sorted(specs, key=lambda spec: spec.stage)
        self._sink = sink
        self._log_dir = log_dir
        self._on_crash_loop = on_crash_loop
        self._on_reload = on_reload
        self._hooks = hooks
        self._children: list[Child] = []
        self._running: dict[Child, asyncio.Task[None]] = {}
        self._killed = self._stopping = False
        #: Wakes who watches the processes, for one that was added.
        self._added = asyncio.Event()
        self._stack = ExitStack()
        self._lifeline = -1
        #: Set when every process of every stage is ready.
        self.ready = asyncio.Event()

    @property
    def pids(self) -> dict[str, int]:
        """The processes that live now, by name."""
        return {child.spec.name: child.pid for child in self._children if child.pid is not None}

    @property
    def failing(self) -> dict[str, str]:
        """The processes that keep ending, by name, and how they ended last."""
        found = {child.spec.name: child.trouble for child in self._children}
        return {name: trouble for name, trouble in found.items() if trouble}

    async def run(self, stop: asyncio.Event) -> int:
        """Run until `stop` is set, SIGINT or SIGTERM comes or its terminal is closed; stop all.

        A second signal kills what is left. Returns 0, or 130 after such a kill. Raises FleetError
        when a process is never ready, with its last line. Works only in the main thread, because
        of the signals.
        """
        with self._stack as stack:
            self._prepare(stack)
            stack.enter_context(self._signals(stop))
            halt = asyncio.create_task(stop.wait())
            hooks = [asyncio.create_task(hook()) for hook in self._hooks]
            rising = asyncio.create_task(self._start())
            try:
                await self._watch(halt, rising, hooks)
            finally:
                halt.cancel()
                rising.cancel()
                await asyncio.wait({rising})
                failed = await self._stop()
                for hook in hooks:
                    hook.cancel()
                failed += _errors(await asyncio.gather(*hooks, return_exceptions=True))
                if failed:
                    raise failed[0]
        return KILLED_EXIT if self._killed else 0

    def _prepare(self, stack: ExitStack) -> None:
        self._lifeline, held = os.pipe()
        # Held until every child has ended: the closed writing end makes them stop.
        stack.callback(os.close, held)
        stack.callback(os.close, self._lifeline)
        for spec in self._specs:
            self._add(spec)

    def _add(self, spec: ProcessSpec) -> Child:
        output, *parts = (self._output(name) for name in (spec.name, *spec.outputs))
        child = Child(
            spec,
            lifeline=self._lifeline,
            output=output,
            parts=parts,
            on_crash_loop=self._on_crash_loop,
        )
        self._children.append(child)
        self._children.sort(key=lambda one: one.spec.stage)
        return child

    async def change(self, specs: Sequence[ProcessSpec], touched: Container[str]) -> None:
        """Have these processes run in place of the others, each `touched` one with new settings.

        Returns when those are ready again. Raises FleetError when one is not; all the others are
        as they should be, and that one is kept starting.
        """
        if self._stopping:
            return
        wanted = {spec.name for spec in specs}
        known = {child.spec.name: child for child in self._children}
        removed = [child for name, child in known.items() if name not in wanted]
        added = [self._add(spec) for spec in specs if spec.name not in known]
        for child in removed:
            child.stopping.set()
        for child in added:
            self._running[child] = asyncio.create_task(child.run())
        self._added.set()
        renewed = [(known[s.name], s) for s in specs if s.name in known and s.name in touched]
        await asyncio.gather(
            *(
                child.renew(spec, [self._output(n) for n in spec.outputs if n not in child.parts])
                for child, spec in renewed
            )
        )
        await asyncio.gather(*(self._running[child] for child in removed))
        for child in removed:
            self._children.remove(child)
            del self._running[child]
        await _all_ready([*added, *(child for child, _ in renewed)])

    def _output(self, name: str) -> Output:
        log = LogFile(log_path(self._log_dir, name))
        self._stack.callback(log.close)
        return Output(name, log, self._sink)

    async def _start(self) -> None:
        for _, stage in groupby(self._children, key=lambda child: child.spec.stage):
            together = list(stage)
            for child in together:
                self._running[child] = asyncio.create_task(child.run())
            await _all_ready(together)
        self.ready.set()

    async def _watch(
        self,
        halt: "asyncio.Task[bool]",
        rising: "asyncio.Task[None]",
        hooks: "Sequence[asyncio.Task[None]]",
    ) -> None:
        """Return when `halt` is done; raise the error of a hook, a process or the start."""
        done: set[asyncio.Task[None]] = set()
        while not halt.done():
            self._added.clear()
            added = asyncio.create_task(self._added.wait())
            tasks = {rising, *hooks, *self._running.values()}
            await asyncio.wait({halt, added, *(tasks - done)}, return_when=asyncio.FIRST_COMPLETED)
            added.cancel()
            done = {task for task in tasks if task.done()}
            for task in done:
                task.result()

    async def _stop(self) -> list[Exception]:
        """Stop backwards through the stages, whatever fails; returns the failures."""
        self._stopping = True
        failed: list[Exception] = []
        for _, stage in groupby(reversed(self._children), key=lambda child: child.spec.stage):
            together = list(stage)
            for child in together:
                child.stopping.set()
            tasks = [self._running[child] for child in together if child in self._running]
            failed += _errors(await asyncio.gather(*tasks, return_exceptions=True))
        return failed

    @contextmanager
    def _signals(self, stop: asyncio.Event) -> Iterator[None]:
        def on_signal() -> None:
            if stop.is_set():
                self._killed = True
                for child in self._children:
                    child.kill()
            stop.set()

        hangup = Hangup()

        def on_hangup() -> None:
            match hangup.meaning():
                case Meaning.RELOAD:
                    self._on_reload()
                case Meaning.STOP:
                    on_signal()

        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGINT: on_signal,
            signal.SIGTERM: on_signal,
            signal.SIGHUP: on_hangup,
            signal.SIGUSR2: self._on_reload,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)


async def _all_ready(children: Sequence[Child]) -> None:
    """Return when all are ready. Raises FleetError when one is not in time."""
    try:
        async with asyncio.TaskGroup() as waiting:
            for child in children:
                waiting.create_task(child.wait_ready())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed


def _errors(outcomes: Sequence[BaseException | None]) -> list[Exception]:
    """The failures among `outcomes`, without cancellations."""
    return [outcome for outcome in outcomes if isinstance(outcome, Exception)]
