"""One life of an interactive program: waiting until it listens, typing to it, hearing its answer.

It is used from one thread. Everything here waits in short looks, none longer than
`POLL_INTERVAL_S`, and between them asks whether the turn may go on.
"""

import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from fleet.config.terminal import TerminalConfig as Terms
from fleet.formats.terminal_text import CODES
from tasks.terminal.program import LINE_BYTES_MAX, TerminalProgram
from tasks.terminal.screen import Screen, ScreenPosition
from tasks.terminal.text import answer_of, begins, echoes, keystrokes

POLL_INTERVAL_S = 0.05
#: What looks like a prompt is one when nothing follows it for so long.
SETTLE_S = 0.15
#: Or when it is seen for so long, whatever else the program draws.
STEADY_S = 1.0
#: Text and Enter that come together may be taken for one paste, of which the Enter is a part.
ENTER_PAUSE_S = 0.2
#: A program that reads nothing for so long has not taken what was typed.
WRITE_S = 5.0
#: To be ready again after Ctrl-C.
INTERRUPT_S = 1.5
#: So much of the output is an echo looked for in (system 003's activity buffer).
_RECENT_CHARS = 16_000
#: How often what was said so far is told.
SAY_EVERY_S = 0.2

#: Lines at both ends of the output in which an echo is looked for.
_ECHO_LINES = 200

_CTRL_C = b"\x03"
_ENTER = b"\r"

#: Called between looks.
Check = Callable[[], None]


class HandOffFailed(Exception):
    """The program did not take the event; the text says why, as the end of a sentence."""


class Unanswered(Exception):
    """The program took the event and then failed; the text says how, as the end of a sentence."""


class TooMuch(Unanswered):
    """It printed more than it may."""


class NeverTypeable(Exception):
    """This text can never be typed to this program; the text is a sentence."""


@dataclass(frozen=True, slots=True)
class Handed:
    """An event that was typed."""

    mark: ScreenPosition
    text: str
    echoed: bool
    heard: int  #: bytes before Enter


class Terminal:
    """A running program and its screen.

    It may print `limit` bytes for each event. `check` raises when the turn must not go on.
    """

    def __init__(self, program: TerminalProgram, terms: Terms, limit: int) -> None:
        self.life = uuid.uuid4().hex
        self.program = program
        self.screen = Screen()
        self._terms = terms
        self._limit = limit
        self._ready = re.compile(terms.ready) if terms.ready else None
        self._heard = 0  #: bytes since the last event was typed
        self._heard_at = time.monotonic()
        self._shown_at = 0.0  #: since when each look has seen what says that it waits; 0: it is not
        self._recent = ""

    def await_input(self, check: Check) -> None:
        """Return when the program waits for input. Raises HandOffFailed when it does not."""
        until = time.monotonic() + self._terms.start_s
        self._begin()
        wait_s = 0.0  # it has waited for long, where nothing was printed meanwhile
        while True:
            self._hear(wait_s, check)
            wait_s = POLL_INTERVAL_S
            if (ending := self.program.ending) is not None:
                raise HandOffFailed(f"{ending} before it was ready for input")
            if self._heard > self._limit:
                raise HandOffFailed(f"it printed more than {self._limit} bytes before it was ready")
            if self._listens():
                return
            if time.monotonic() > until:
                raise HandOffFailed(f"it was not ready for input within {self._terms.start_s:g} s")

    def hand_over(self, text: str, check: Check) -> Handed:
        """Type the text and Enter, and look for its echo.

        Raises HandOffFailed, NeverTypeable.
        """
        keys = keystrokes(text, brackets_pastes=self.screen.brackets_pastes)
        if self.program.reads_lines and len(keys) > LINE_BYTES_MAX:
            raise NeverTypeable(
                f"the event is {len(keys)} bytes on one line, and the program reads lines, of which"
                f" a terminal holds {LINE_BYTES_MAX} bytes"
            )
        mark, at = self._begin(), time.monotonic()
        self._type(keys, check)
        while not (echoed := self._echoed(mark, text)) and time.monotonic() < at + ENTER_PAUSE_S:
            self._hear(POLL_INTERVAL_S, check)
            self._must_live()
        handed = Handed(mark, text, echoed, self._heard)
        self._type(_ENTER, check)
        while not echoed and time.monotonic() < at + self._terms.echo_s:
            if self._heard > self._limit or self._done(handed):
                break
            self._hear(POLL_INTERVAL_S, check)
            echoed = self._echoed(mark, text)
            if not echoed:
                self._must_live()
        return replace(handed, echoed=echoed)

    def answer(self, handed: Handed, check: Check, say: Callable[[str], None] | None = None) -> str:
        """What the program answers; `say` is told what that is so far, again and again.

        Raises Unanswered.
        """
        told_at = time.monotonic()
        while not self._done(handed):
            self._hear(POLL_INTERVAL_S, check)
            if self._heard > self._limit:
                raise TooMuch(f"it printed more than {self._limit} bytes (max_output_bytes)")
            if (ending := self.program.ending) is not None:
                raise Unanswered(f"{ending} while it had the event")
            if say is not None and time.monotonic() > told_at + SAY_EVERY_S:
                said, told_at = self._said(handed), time.monotonic()
                # Its last line may be a prompt, or may still change.
                say(said[: said.rfind("\n") + 1])
        return self._said(handed)

    def interrupt(self) -> bool:
        """Ctrl-C; True when the program shows in time that it waits for input again."""
        self._heard, self._shown_at = 0, 0.0
        self.program.write(_CTRL_C)
        until = time.monotonic() + INTERRUPT_S
        while self._ready and self.program.ending is None and time.monotonic() < until:
            self._hear(POLL_INTERVAL_S, _go_on)
            if self._heard and self._listens():
                return True
        return False

    def _begin(self) -> ScreenPosition:
        self._recent, self._heard, self._shown_at = "", 0, 0.0
        return self.screen.mark()

    def _hear(self, wait_s: float, check: Check) -> None:
        check()
        data = self.program.read(wait_s)
        if not data:
            return
        self._heard += len(data)
        self._heard_at = time.monotonic()
        self.screen.feed(data)
        self._recent = (self._recent + data.decode(errors="replace"))[-_RECENT_CHARS:]
        if self.screen.replies:
            # A program that reads lines asked nothing: it only showed what asks.
            if not self.program.reads_lines:
                self.program.write(self.screen.replies)
            self.screen.replies = b""

    def _type(self, keys: bytes, check: Check) -> None:
        until = time.monotonic() + WRITE_S
        while keys:
            taken = self.program.write(keys)
            keys = keys[taken:]
            self._must_live()
            if taken:
                until = time.monotonic() + WRITE_S
            elif time.monotonic() > until:
                raise HandOffFailed(f"it took no input for {WRITE_S:g} s")
            # What it prints meanwhile would else fill up, and it would stop to read.
            self._hear(POLL_INTERVAL_S if keys else 0.0, check)

    def _must_live(self) -> None:
        if (ending := self.program.ending) is not None:
            raise HandOffFailed(f"{ending} when the event was typed")

    def _echoed(self, mark: ScreenPosition, text: str) -> bool:
        if echoes(CODES.sub("", self._recent), text):
            return True
        lines = self.screen.since(mark)
        seen = (
            lines if len(lines) <= 2 * _ECHO_LINES else lines[:_ECHO_LINES] + lines[-_ECHO_LINES:]
        )
        return echoes("\n".join(seen), text)

    def _listens(self, handed: Handed | None = None) -> bool:
        """True when the program waits for input, as far as can be told."""
        now = time.monotonic()
        if self._ready is None:
            return now - self._heard_at >= self._terms.quiet_s
        if self._prompt(handed) is None:
            self._shown_at = 0.0
            return False
        self._shown_at = self._shown_at or now
        return now - self._heard_at >= SETTLE_S or now - self._shown_at >= STEADY_S

    def _done(self, handed: Handed) -> bool:
        """True when it does so again, and has answered."""
        if self._heard == handed.heard or not self._listens(handed):
            return False
        if self._ready is not None:
            return True
        prompt = handed.mark.prompt.rstrip()
        again = bool(prompt) and self.screen.cursor_line().rstrip() == prompt
        return again or bool(self._said(handed))

    def _prompt(self, handed: Handed | None) -> str | None:
        """What says that the program waits, to the end of its line; None where nothing does.

        It is all of the line, where the event was typed behind the same. The line with what was
        typed says nothing, although it begins with the prompt.
        """
        assert self._ready is not None  # noqa: S101 - callers have looked
        for line in (self.screen.cursor_line(), self.screen.last_line()):
            if handed and begins(handed.text, line.removeprefix(handed.mark.prompt.rstrip())):
                continue
            if found := self._ready.search(line):
                same = handed and handed.mark.prompt.rstrip().endswith(line.rstrip())
                return line if same else line[found.start() :]
        return None

    def _said(self, handed: Handed) -> str:
        now = self._prompt(handed) if self._ready else None
        prompts = (handed.mark.prompt, now or "")
        lines, text = self.screen.since(handed.mark), handed.text if handed.echoed else ""
        return answer_of(lines, text, prompts, redrawn=self.screen.redrawn)


def _go_on() -> None:
    """A turn that must not be asked about: it is over."""
