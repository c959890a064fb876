"""Runner `command`: a program is an agent, started anew for each turn.

It gets the text on its standard input, and its standard output is the answer. In a chain the text
holds the answers of earlier stages too.

    [agents.coder]
    runner = "command"
    command = ["claude", "-p"]

No shell is involved, and no part of an event is ever on the command line. The program runs in a
session of its own. When the program or its turn ends, all that the program started is killed.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fleet.formats.terminal_text import strip_escapes
from fleet.ledger import Failure, FailureStage
from fleet.system.parent_death import become_subreaper, kill_children
from fleet.system.process_tags import ProcessTag, kill_tagged, tag_descriptors
from fleet.turn.turn import Deadline, Turn, TurnFailed
from tasks.limits import noted_limit
from tasks.runners.turn_input import turn_environment

#: Between SIGTERM and SIGKILL when a turn is over and its program is not; below the hard limit's
#: margin.
TERM_TIMEOUT_S = 2.0
#: The soft limit interrupts the wait. A missing interrupt is noticed after this; not at once, or a
#: late one would interrupt the cleaning up.
BACKSTOP_S = 5.0
#: How long output is read on after the program has ended and another process holds the pipe.
DRAIN_S = 0.2
#: How late, at most, the program's end is noticed while another process holds its output open.
POLL_S = 0.05
CHUNK = 65536


class CommandRunner:
    """Runs the configured program once, as one journalled step."""

    def run(self, turn: Turn) -> str:
        """The program's output, without terminal codes.

        Raises TurnFailed when the program cannot be started, fails, or prints too much.
        """
        text = turn.prompt
        request = {"command": list(turn.agent.command), "text": text}
        return str(turn.step("command", request, lambda: _answer(turn, text))["text"])


def _answer(turn: Turn, text: str) -> dict[str, Any]:
    with _running(turn) as program:
        exchange = _Exchange(program, text.encode(), turn.agent.max_output_bytes)
        code = exchange.finish(turn.deadline + BACKSTOP_S)
    if code:
        raise _failed(f"the command ended with {_ending(code)}", retryable=True)
    return {
        "text": strip_escapes(bytes(exchange.output).decode(errors="replace")),
        "exit_code": code,
    }


@contextlib.contextmanager
def _running(turn: Turn) -> Iterator["subprocess.Popen[bytes]"]:
    agent = turn.agent
    others = become_subreaper()
    try:
        program = subprocess.Popen(
            agent.command,
            cwd=agent.cwd,
            env=turn_environment(turn),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # It may repeat the prompt, which must not be in a worker's log.
            stderr=None if agent.log_stderr else subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=tag_descriptors(),
        )
    except OSError as error:
        what = agent.cwd if agent.cwd and not Path(agent.cwd).is_dir() else agent.command[0]
        reason = f"{what} cannot be used: {error.strerror or error}"
        raise _failed(reason, retryable=False) from error
    try:
        yield program
    finally:
        # The soft limit may pass just now, and must not interrupt the cleaning up.
        with noted_limit():
            _end(program, others)


def _end(program: "subprocess.Popen[bytes]", others: frozenset[int]) -> None:
    """End the program and all that it started, first by SIGTERM, then by SIGKILL.

    `others` were children of this process before the program.
    """
    for pipe in (program.stdin, program.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    if program.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(TERM_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()
    # A process that left the session carries this process's tag. One that dropped the tag has
    # become this process's child; no other process of the program is left.
    kill_tagged(ProcessTag.CHILD, os.getpid())
    kill_children(besides=others)


@dataclass(slots=True)
class _Exchange:
    """Writes the input and reads the output at once, so that neither pipe can block the other."""

    program: "subprocess.Popen[bytes]"
    unwritten: bytes
    limit: int
    output: bytearray = field(default_factory=bytearray)

    def finish(self, deadline: float) -> int:
        """The exit code, at the end. Raises Deadline, and TurnFailed for too much output."""
        with selectors.DefaultSelector() as selector:
            self._register(selector)
            ended_at: float | None = None
            while selector.get_map():
                now = time.monotonic()
                if now >= deadline:
                    raise Deadline
                if self.program.poll() is not None:
                    ended_at = ended_at or now
                    if now - ended_at > DRAIN_S:
                        break
                for key, _ in selector.select(min(POLL_S, deadline - now)):
                    if not self._move(key.fileobj):
                        selector.unregister(key.fileobj)
                        key.fileobj.close()  # type: ignore[union-attr]  # registered as files
        while (code := self.program.poll()) is None:
            if time.monotonic() >= deadline:
                raise Deadline
            time.sleep(POLL_S / 5)
        return code

    def _register(self, selector: selectors.BaseSelector) -> None:
        for pipe, event in (
            (self.program.stdin, selectors.EVENT_WRITE),
            (self.program.stdout, selectors.EVENT_READ),
        ):
            assert pipe is not None  # noqa: S101 - both were requested
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, event)

    def _move(self, pipe: Any) -> bool:
        """Move the bytes that can be moved now; False when this pipe is done."""
        return self._write(pipe) if pipe == self.program.stdin else self._read(pipe)

    def _write(self, pipe: IO[bytes]) -> bool:
        try:
            self.unwritten = self.unwritten[os.write(pipe.fileno(), self.unwritten[:CHUNK]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:  # the program does not read its input
            return False
        return bool(self.unwritten)

    def _read(self, pipe: IO[bytes]) -> bool:
        try:
            piece = os.read(pipe.fileno(), CHUNK)
        except BlockingIOError:
            return True
        self.output += piece
        if len(self.output) > self.limit:
            raise _failed(
                f"the command printed more than {self.limit} bytes (max_output_bytes)",
                retryable=False,
            )
        return bool(piece)


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _failed(reason: str, *, retryable: bool) -> TurnFailed:
    return TurnFailed(
        Failure(stage=FailureStage.TOOL, reason=reason, retryable=retryable, kind="CommandFailed")
    )
