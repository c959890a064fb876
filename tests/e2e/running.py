"""A whole fleet under test: `fleet up` in a folder of its own, and commands beside it."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil  # type: ignore[import-untyped]  # ships no types

from tests.fixtures.processes import MARK, marked, wait_until

#: Importing LiteLLM on a busy machine without compiled files has taken 20 s.
UP_S = 90.0
#: A command that takes longer hangs.
COMMAND_S = 90.0

HEAD = """
[fleet]
drain_s = 10
[api]
port = 0
[flower]
enabled = false
"""

#: An agent without a model, and its code, which stands in `my_agents.py`.
ECHO = """
[agents.echo]
runner = "python"
python = "my_agents:echo"
[routes]
default = ["echo"]
"""
ECHO_CODE = """
def echo(turn):
    return f"You said: {turn.text}"
"""


@dataclass(frozen=True)
class Done:
    """The answer of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output as one JSON document."""
        return json.loads(self.out)

    def one_sentence(self) -> str:
        """The only line of its standard error, `fleet: ...`; AssertionError when there is more."""
        assert self.err.startswith("fleet: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("fleet: ").rstrip("\n")


class Place:
    """A folder with a configuration, in which commands are run without any setting of ours."""

    def __init__(self, folder: Path, config: str | None, env: Mapping[str, str] | None = None):
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.python: str | Path = sys.executable
        self._up: subprocess.Popen[str] | None = None
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("FLEET_")}
        # pytest's own terminal is not that of the commands.
        self.env.pop("COLUMNS", None)
        self.env |= {MARK: self.mark, **(env or {})}
        if config is not None:
            self.write(config)

    def write(self, config: str) -> None:
        """Write the configuration."""
        (self.folder / "fleet.toml").write_text(config)

    def fleet(self, *args: str, stdin: str = "", options: Sequence[str] = ()) -> Done:
        """Run one command to its end."""
        done = subprocess.run(
            self.argv(*args, options=options),
            cwd=self.folder,
            env=self.env,
            input=stdin,
            timeout=COMMAND_S,
            text=True,
            capture_output=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def popen(
        self,
        *args: str,
        stdout: int | IO[str] = subprocess.PIPE,
        stderr: int | IO[str] = subprocess.PIPE,
    ) -> "subprocess.Popen[str]":
        """Start one command; without other orders its output is piped."""
        return subprocess.Popen(
            self.argv(*args),
            cwd=self.folder,
            env=self.env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )

    def argv(self, *args: str, options: Sequence[str] = ()) -> list[str]:
        """The command line of `fleet`; `options` are Python's."""
        return [str(self.python), *options, "-m", "fleet", *args]

    def up(self) -> None:
        """Start `fleet up` and return when it says that it is up."""
        with self.output.open("w") as output:
            self._up = self.popen("up", stdout=output, stderr=subprocess.STDOUT)
        process = self._up
        wait_until(lambda: "fleet is up" in self.said or process.poll() is not None, UP_S)
        assert "fleet is up" in self.said, self.said

    @property
    def output(self) -> Path:
        """The file with what `fleet up` prints."""
        return self.folder / "up.out"

    @property
    def said(self) -> str:
        """Everything that `fleet up` has printed."""
        return self.output.read_text()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signal `fleet up` and return its exit code when it has ended."""
        self.signal(number)
        return self.wait()

    def signal(self, number: signal.Signals) -> None:
        """Signal `fleet up`."""
        assert self._up is not None
        self._up.send_signal(number)

    def wait(self) -> int:
        """Return the exit code of `fleet up` when it has ended."""
        assert self._up is not None
        return self._up.wait(COMMAND_S)

    def living(self) -> "list[psutil.Process]":
        """Every process that was started here; the broker is known by where it runs."""
        pids = {process.pid for process in marked(self.mark)}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                here = process.cwd().startswith(str(self.folder))
                if (here or process.pid in pids) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def kill_everything(self) -> None:
        """SIGKILL every process that was started here, the broker too."""
        for process in self.living():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self._up is not None:
            self._up.wait(COMMAND_S)
        wait_until(lambda: not self.living())

    def state(self, dispatch_id: str) -> str:
        """The state of a dispatch now."""
        return str(self.fleet("queue", "inspect", dispatch_id, "--json").json["state"])

    def outcome(self, *args: str) -> dict[str, Any]:
        """Send an event to one agent and wait for the end of its dispatch; what is known of it."""
        answer = self.fleet("send", *args, "--wait", "--timeout", "85", "--json")
        assert answer.out, answer.err
        record: dict[str, Any] = answer.json["dispatches"][0]
        return record

    def send(self, *args: str) -> str:
        """Send an event to one agent; its dispatch's id."""
        answer = self.fleet("send", *args, "--json")
        assert answer.code == 0, answer.err
        return str(answer.json["dispatches"][0]["dispatch_id"])


@contextmanager
def place(
    folder: Path, config: str | None, env: Mapping[str, str] | None = None
) -> Iterator[Place]:
    """A place in which nothing may be left running at the end."""
    found = Place(folder, config, env)
    try:
        yield found
        left = [" ".join(process.cmdline()) for process in found.living()]
        assert not left
    finally:
        found.kill_everything()
