"""Runs a page of the documentation as a reader would: files are written, commands are run.

A page's fenced blocks are its steps, in order:

- `toml title="fleet.toml"` is written to that file. Blocks with one title add up to one file. What
  comes after the last `$ fleet up` is there already when that is run.
- `console` holds lines `$ command`, each with the output that is expected. `...` stands for
  anything, alone in its line for any lines, and a run of blanks is one blank. A word of `NAMES`
  stands for what is found there, and in later commands for the same. `^C` interrupts the command
  above it, once its output is there, or `fleet up` where it is the first line; `&` leaves a command
  running.
- `text` is a picture. Any other block needs `<!-- not run: reason -->` above it.

A command must not fail, unless its expected output has a line `fleet: ...`. Progress, which goes to
standard error, is not looked at.
"""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.running import COMMAND_S, Place
from tests.fixtures.processes import wait_until

#: What a page calls that which nobody can know before.
NAMES = ("DISPATCH_ID", "EVENT_ID", "TOKEN", "PID")
#: The ports that pages name; free ones stand in for them.
PORTS = ("8700", "9000")
_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n+)?"
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
_UNKNOWN = re.compile(rf"(\.\.\.|(?<![\w$])(?:{'|'.join(NAMES)})(?!\w))")
#: A line of the bus, as `fleet send --wait` shows progress.
_PROGRESS = re.compile(r"\d\d:\d\d:\d\d\.\d{3} \w+")


@dataclass(frozen=True)
class Block:
    """One fenced block; `reason` says why it is not run."""

    language: str
    title: str
    text: str
    reason: str


@dataclass(frozen=True)
class Step:
    """One command, and what it should print."""

    command: str
    expected: str
    interrupted: bool

    @property
    def is_up(self) -> bool:
        """True for the command that starts the fleet."""
        return self.command == "fleet up"


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page. AssertionError for one that would be passed over."""
    text = page.read_text()
    found = [Block(**hit.groupdict(default="")) for hit in _BLOCK.finditer(text)]
    assert 2 * len(found) == len(re.findall("^ *```", text, re.MULTILINE)), f"{page}: a lost fence"
    for block in found:
        known = block.title or block.reason or block.language in ("console", "text")
        assert known, f"{page}: neither run nor marked:\n{block.text}"
    return found


def actions(page: Sequence[Block]) -> list[Block | Step]:
    """Files and commands, in the order in which they are done."""
    done: list[Block | Step] = []
    for block in page:
        if not block.reason and block.language != "text":
            done += [block] if block.title else steps(block)
    ups = [place for place, one in enumerate(done) if isinstance(one, Step) and one.is_up]
    if ups:
        # What a page shows of the running fleet's files is there when it starts.
        late = [one for one in done[ups[-1] :] if isinstance(one, Block)]
        rest = [one for one in done[ups[-1] :] if isinstance(one, Step)]
        done[ups[-1] :] = [*late, *rest]
    return done


def steps(block: Block) -> Iterator[Step]:
    """The commands of a console block."""
    first, *parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert first in ("", "^C\n"), f"no command: {first}"
    if first:
        yield Step("^C", "", interrupted=False)
    for part in parts:
        command, _, expected = part.partition("\n")
        while command.endswith("\\"):
            more, _, expected = expected.partition("\n")
            command = f"{command}\n{more}"
        interrupted = expected.endswith("^C\n")
        yield Step(command, expected.removesuffix("^C\n"), interrupted)


def pattern(expected: str) -> "re.Pattern[str]":
    """The pattern of the output; the first place of each name becomes a group."""
    caught: set[str] = set()

    def anything(part: str) -> str:
        if part == "...":
            return ".*?"
        if part not in NAMES:
            return re.escape(part)
        if part in caught:
            return f"(?P={part})"
        caught.add(part)
        return rf"(?P<{part}>[\w-]+)"

    lines = []
    for line in _even(expected).splitlines():
        parts = _UNKNOWN.split(line)
        lines.append("(?:.*\n)*?" if line == "..." else "".join(map(anything, parts)) + "\n")
    return re.compile("".join(lines))


def _even(text: str) -> str:
    """Without blank lines, blanks at a line's ends, and more than one blank or rule in a row."""
    lines = (re.sub("─+", "─", " ".join(line.split())) for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line)


@dataclass
class Reader:
    """Somebody who does what a page says, in the folder of a place."""

    here: Place
    ports: dict[str, str]
    known: dict[str, str] = field(default_factory=dict)
    left_running: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    started: int = 0  #: commands so far
    up: bool = False

    def follow(self, page: Sequence[Block]) -> None:
        """Do all of it, and end what is left running."""
        try:
            for action in actions(page):
                self._write(action) if isinstance(action, Block) else self._do(action)
            if self.up:
                self._stop()
        finally:
            for process in self.left_running:
                _signal(process, signal.SIGKILL)

    def _write(self, block: Block) -> None:
        path = self.here.folder / block.title
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(self._ours(block.text))

    def _do(self, step: Step) -> None:
        if step.is_up:
            self.here.up()
            self._compare(step, self.here.said)
            self.up = True
        elif step.command == "^C":
            self._stop()
        elif step.command.endswith(" &"):
            self.left_running.append(self._start(step.command.removesuffix("&")))
            wait_until(self._listens)
        elif step.interrupted:
            self._interrupt(step)
        else:
            process = self._start(step.command)
            code = process.wait(COMMAND_S)
            said = self._said()
            self._compare(step, said)
            fails = re.search("^fleet: ", step.expected, re.MULTILINE)
            assert not code or fails, f"$ {step.command}\nexit code {code}:\n{said}"

    def _stop(self) -> None:
        assert self.here.stop() == 0, self.here.said
        self.up = False

    def _interrupt(self, step: Step) -> None:
        process = self._start(step.command)
        until = time.monotonic() + COMMAND_S
        try:
            while not pattern(step.expected).fullmatch(_even(self._theirs(self._said()))):
                if process.poll() is not None or time.monotonic() > until:
                    self._compare(step, self._said())
                time.sleep(0.02)
            self._compare(step, self._said())
        finally:
            _signal(process, signal.SIGINT)

    def _start(self, command: str) -> "subprocess.Popen[bytes]":
        for name, value in self.known.items():
            command = re.sub(rf"(?<![\w$]){name}(?!\w)", value, command)
        self.started += 1
        with self._file("out").open("w") as out, self._file("err").open("w") as err:
            return subprocess.Popen(
                ["bash", "-c", self._ours(command)],
                cwd=self.here.folder,
                env=self.here.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def _said(self) -> str:
        err = self._file("err").read_text().splitlines(keepends=True)
        return self._file("out").read_text() + "".join(
            line for line in err if not _PROGRESS.match(line)
        )

    def _file(self, name: str) -> Path:
        """Beside the reader's folder, so that `ls` there shows only what is the page's."""
        return self.here.folder.with_suffix(f".{self.started}.{name}")

    def _compare(self, step: Step, said: str) -> None:
        hit = pattern(step.expected).fullmatch(_even(self._theirs(said)))
        assert hit, f"$ {step.command}\nshould say:\n{step.expected}\nsays:\n{said}"
        self.known.update(hit.groupdict())

    def _ours(self, text: str) -> str:
        for port, free in self.ports.items():
            text = re.sub(rf"\b{port}\b", free, text)
        return text

    def _theirs(self, text: str) -> str:
        for port, free in self.ports.items():
            text = re.sub(rf"\b{free}\b", port, text)
        return text

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", int(self.ports["9000"])), 1):
            return True
        return False


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """To all of a command's processes; then they end."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    process.wait(COMMAND_S)
