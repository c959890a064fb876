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
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fleet.formats.terminal_text import strip_escapes
from fleet.ledger import Failure, FailureStage
from fleet.ledger.failures import MESSAGE_BYTES_MAX, last_bytes
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
        exchange = _Exchange(
            program, text.encode(), turn.agent.max_output_bytes, turn.agent.log_stderr
        )
        try:
            code = exchange.finish(turn.deadline + BACKSTOP_S)
        except Deadline as error:
            error.said = exchange.last_words
            raise
    if code:
        reason = f"the command ended with {_ending(code)}"
        raise _failed(reason, retryable=True, said=exchange.last_words)
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
            stderr=subprocess.PIPE,
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
    for pipe in (program.stdin, program.stdout, program.stderr):
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
    """Writes the input and reads the output at once, so that no pipe can block another."""

    program: "subprocess.Popen[bytes]"
    unwritten: bytes
    limit: int
    log_stderr: bool
    output: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)  #: the end of standard error

    @property
    def last_words(self) -> str:
        """The end of what the program printed, of standard error where there is any."""
        words = bytes(self.errors or self.output[-MESSAGE_BYTES_MAX:])
        return last_bytes(strip_escapes(words.decode(errors="replace")), MESSAGE_BYTES_MAX)

    def finish(self, deadline: float) -> int:
        """The exit code, at the end. Raises Deadline, and TurnFailed for too much output."""
        with selectors.DefaultSelector() as selector:
            self._register(selector)
            ended_at: float | None = None
            while self._is_open(selector):
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
                self._move_errors(selector)
            self._move_errors(selector)
        return code

    def _is_open(self, selector: selectors.BaseSelector) -> bool:
        """True while input or output is. Who holds standard error only is not waited for."""
        open_pipes = [key.fileobj for key in selector.get_map().values()]
        return bool(open_pipes) and open_pipes != [self.program.stderr]

    def _move_errors(self, selector: selectors.BaseSelector) -> None:
        """Read what standard error has now: a program that fills it would wait for ever."""
        assert self.program.stderr is not None  # noqa: S101 - it was requested
        if self.program.stderr in [key.fileobj for key in selector.get_map().values()]:
            self._read_errors(self.program.stderr)

    def _register(self, selector: selectors.BaseSelector) -> None:
        for pipe, event in (
            (self.program.stdin, selectors.EVENT_WRITE),
            (self.program.stdout, selectors.EVENT_READ),
            (self.program.stderr, selectors.EVENT_READ),
        ):
            assert pipe is not None  # noqa: S101 - all were requested
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, event)

    def _move(self, pipe: Any) -> bool:
        """Move the bytes that can be moved now; False when this pipe is done."""
        if pipe == self.program.stdin:
            return self._write(pipe)
        return self._read(pipe) if pipe == self.program.stdout else self._read_errors(pipe)

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

    def _read_errors(self, pipe: IO[bytes]) -> bool:
        try:
            piece = os.read(pipe.fileno(), CHUNK)
        except BlockingIOError:
            return True
        if self.log_stderr:
            sys.stderr.write(piece.decode(errors="replace"))
        self.errors = (self.errors + piece)[-MESSAGE_BYTES_MAX:]
        return bool(piece)


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _failed(reason: str, *, retryable: bool, said: str = "") -> TurnFailed:
    return TurnFailed(
        Failure(
            stage=FailureStage.TOOL,
            reason=reason,
            retryable=retryable,
            kind="CommandFailed",
            message=said,
        )
    )
