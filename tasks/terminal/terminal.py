"""One life of an interactive program: wait until it is ready, type to it, read its answer.

Used from one thread. Every wait polls at `POLL_INTERVAL_S`, and checks between polls that the turn
may go on.
"""

import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from fleet.config.terminal import TerminalConfig as Terms
from fleet.formats.terminal_text import CODES, strip_escapes
from tasks.terminal.program import LINE_BYTES_MAX, TerminalProgram
from tasks.terminal.screen import Screen, ScreenPosition
from tasks.terminal.text import begins, echoes, extract_answer, keystrokes

POLL_INTERVAL_S = 0.05
#: A line like a prompt is a prompt when no output follows for so long.
SETTLE_S = 0.15
#: Or when it stays for so long, whatever else the program draws.
STEADY_S = 1.0
#: Text and Enter that come together may be taken for one paste that includes the Enter.
ENTER_PAUSE_S = 0.2
#: A program that reads nothing for so long has not accepted the input.
WRITE_S = 5.0
#: To be ready again after Ctrl-C.
INTERRUPT_S = 1.5
#: The last characters of the output, in which an echo is searched for.
_RECENT_CHARS = 16_000
#: Between publications of the answer so far.
PUBLISH_EVERY_S = 0.2

#: Lines at both ends of the output in which an echo is searched for.
_ECHO_LINES = 200

_CTRL_C = b"\x03"
_ENTER = b"\r"

#: Called between polls; raises when the turn must not go on.
Check = Callable[[], None]


class InputRejected(Exception):
    """The program did not accept the event; the text is the reason, as a clause."""


class AnswerFailed(Exception):
    """The program accepted the event and then failed; the text is the reason, as a clause."""


class OutputTooLarge(AnswerFailed):
    """The program printed more than it may."""


class Untypeable(Exception):
    """This text can never be typed to this program; the text is a sentence."""


@dataclass(frozen=True, slots=True)
class TypedEvent:
    """An event typed to the program."""

    mark: ScreenPosition
    text: str
    echoed: bool
    received: int  #: bytes printed before Enter


class Terminal:
    """A running program and its screen.

    The program may print `limit` bytes for each event.
    """

    def __init__(self, program: TerminalProgram, terms: Terms, limit: int) -> None:
        self.life = uuid.uuid4().hex
        self.program = program
        self.screen = Screen()
        self._terms = terms
        self._limit = limit
        self._ready = re.compile(terms.ready) if terms.ready else None
        self._received = 0  #: bytes since the last event was typed
        self._received_at = time.monotonic()  #: the last output, or Enter
        self._shown_at = 0.0  #: since when every poll has seen a prompt; 0: none now
        self._recent = ""

    @property
    def last_words(self) -> str:
        """The end of what the program printed since the last event was typed."""
        return strip_escapes(self._recent)

    def await_input(self, check: Check) -> None:
        """Return when the program waits for input. Raises InputRejected when it does not."""
        until = time.monotonic() + self._terms.start_s
        self._begin()
        wait_s = 0.0  # without new output it has been waiting for long
        while True:
            self._read(wait_s, check)
            wait_s = POLL_INTERVAL_S
            if (ending := self.program.ending) is not None:
                raise InputRejected(f"{ending} before it was ready for input")
            if self._received > self._limit:
                raise InputRejected(f"it printed more than {self._limit} bytes before it was ready")
            if self._is_waiting():
                return
            if time.monotonic() > until:
                raise InputRejected(f"it was not ready for input within {self._terms.start_s:g} s")

    def submit(self, text: str, check: Check) -> TypedEvent:
        """Type the text and Enter, and search for its echo.

        Raises InputRejected, Untypeable.
        """
        keys = keystrokes(text, brackets_pastes=self.screen.brackets_pastes)
        if self.program.reads_lines and len(keys) > LINE_BYTES_MAX:
            raise Untypeable(
                f"the event is {len(keys)} bytes on one line, and the program reads lines, of which"
                f" a terminal holds {LINE_BYTES_MAX} bytes"
            )
        mark, at = self._begin(), time.monotonic()
        self._type(keys, check)
        while not (echoed := self._echoed(mark, text)) and time.monotonic() < at + ENTER_PAUSE_S:
            self._read(POLL_INTERVAL_S, check)
            self._check_alive()
        handed = TypedEvent(mark, text, echoed, self._received)
        self._type(_ENTER, check)
        self._received_at = time.monotonic()
        while not echoed and time.monotonic() < at + self._terms.echo_s:
            if self._received > self._limit or self._done(handed) or self._finished:
                break
            self._read(POLL_INTERVAL_S, check)
            echoed = self._echoed(mark, text)
            if not echoed and not self._finished:
                self._check_alive()
        return replace(handed, echoed=echoed)

    def await_answer(
        self, handed: TypedEvent, check: Check, publish: Callable[[str], None] | None = None
    ) -> str:
        """The program's answer; `publish` is called with the answer so far, again and again.

        Raises AnswerFailed.
        """
        published_at = time.monotonic()
        while not self._done(handed):
            fresh = self._read(POLL_INTERVAL_S, check)
            if self._received > self._limit:
                raise OutputTooLarge(f"it printed more than {self._limit} bytes (max_output_bytes)")
            if not fresh and self._finished:
                break
            if (ending := self.program.ending) is not None and not self._finished:
                raise AnswerFailed(f"{ending} while it had the event")
            if publish is not None and time.monotonic() > published_at + PUBLISH_EVERY_S:
                answer, published_at = self._answer_so_far(handed), time.monotonic()
                # Its last line may be a prompt, or may still change.
                publish(answer[: answer.rfind("\n") + 1])
        return self._answer_so_far(handed)

    def interrupt(self) -> bool:
        """Type Ctrl-C; True when the program is ready for input again in time."""
        self._received, self._shown_at = 0, 0.0
        self.program.write(_CTRL_C)
        until = time.monotonic() + INTERRUPT_S
        while self._ready and self.program.ending is None and time.monotonic() < until:
            self._read(POLL_INTERVAL_S, _go_on)
            if self._received and self._is_waiting():
                return True
        return False

    def _begin(self) -> ScreenPosition:
        self._recent, self._received, self._shown_at = "", 0, 0.0
        return self.screen.mark()

    @property
    def _finished(self) -> bool:
        """True when the program has answered by its end: it takes one event in its life."""
        return self._ready is None and self.program.succeeded

    def _read(self, wait_s: float, check: Check) -> bool:
        """Show what the program prints within `wait_s`; True when it printed something."""
        check()
        data = self.program.read(wait_s)
        if not data:
            return False
        self._received += len(data)
        self._received_at = time.monotonic()
        self.screen.feed(data)
        self._recent = (self._recent + data.decode(errors="replace"))[-_RECENT_CHARS:]
        if self.screen.replies:
            # A program that reads lines sent no query: it only showed text with one.
            if not self.program.reads_lines:
                self.program.write(self.screen.replies)
            self.screen.replies = b""
        return True

    def _type(self, keys: bytes, check: Check) -> None:
        until = time.monotonic() + WRITE_S
        while keys:
            self._check_alive()
            taken = self.program.write(keys)
            keys = keys[taken:]
            if taken:
                until = time.monotonic() + WRITE_S
            elif time.monotonic() > until:
                raise InputRejected(f"it took no input for {WRITE_S:g} s")
            # Otherwise its output would fill the terminal, and it would stop reading.
            self._read(POLL_INTERVAL_S if keys else 0.0, check)

    def _check_alive(self) -> None:
        if (ending := self.program.ending) is not None:
            raise InputRejected(f"{ending} when the event was typed")

    def _echoed(self, mark: ScreenPosition, text: str) -> bool:
        if echoes(CODES.sub("", self._recent), text):
            return True
        lines = self.screen.lines_since(mark)
        seen = (
            lines if len(lines) <= 2 * _ECHO_LINES else lines[:_ECHO_LINES] + lines[-_ECHO_LINES:]
        )
        return echoes("\n".join(seen), text)

    def _is_waiting(self, handed: TypedEvent | None = None) -> bool:
        """True when the program seems to wait for input."""
        now = time.monotonic()
        if self._ready is None:
            return now - self._received_at >= self._terms.quiet_s
        if self._prompt(handed) is None:
            self._shown_at = 0.0
            return False
        self._shown_at = self._shown_at or now
        return now - self._received_at >= SETTLE_S or now - self._shown_at >= STEADY_S

    def _done(self, handed: TypedEvent) -> bool:
        """True when the program waits again and has answered, if only by reading on."""
        if not self._is_waiting(handed):
            return False
        printed = self._received != handed.received
        if self._ready is not None:
            return printed
        prompt = handed.mark.prompt.rstrip()
        again = bool(prompt) and self.screen.cursor_line().rstrip() == prompt
        answered = printed and (again or bool(self._answer_so_far(handed)))
        return answered or self.program.awaits_input

    def _prompt(self, handed: TypedEvent | None) -> str | None:
        """The prompt, to the end of its line; None where there is none.

        It is the whole line where the event was typed behind the same line. The line with the typed
        text is not a prompt, although it begins with one.
        """
        assert self._ready is not None  # noqa: S101 - the callers have checked
        for line in (self.screen.cursor_line(), self.screen.last_line()):
            if handed and begins(handed.text, line.removeprefix(handed.mark.prompt.rstrip())):
                continue
            if found := self._ready.search(line):
                same = handed and handed.mark.prompt.rstrip().endswith(line.rstrip())
                return line if same else line[found.start() :]
        return None

    def _answer_so_far(self, handed: TypedEvent) -> str:
        now = self._prompt(handed) if self._ready else None
        prompts = (handed.mark.prompt, now or "")
        lines, text = self.screen.lines_since(handed.mark), handed.text if handed.echoed else ""
        return extract_answer(lines, text, prompts, redrawn=self.screen.redrawn)


def _go_on() -> None:
    """The check of a turn that is over."""
