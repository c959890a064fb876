"""Machines of a test's own: network namespaces with a wire to this one, which can be cut.

A process in one also has process numbers of its own, as in a container or on another machine. A cut
wire is silent: nothing is refused and no connection ends, packets go to an address that nobody has.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

#: Nobody's hardware address.
NOWHERE = "02:00:00:00:00:99"


@dataclass(frozen=True, slots=True)
class Machine:
    """One namespace; `here` is this side's address on its wire."""

    name: str
    here: str
    there: str

    @property
    def command(self) -> list[str]:
        """Put before a command, runs it there."""
        own = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
        return ["ip", "netns", "exec", self.name, *own]

    def cut(self, *, requests: bool = True, answers: bool = True) -> None:
        """Lose what it sends, what is sent to it, or both."""
        if answers:
            _run(*_neighbour(self.there, NOWHERE, self.name))
        if requests:
            _run("ip", "netns", "exec", self.name, *_neighbour(self.here, NOWHERE, "eth"))

    def heal(self) -> None:
        """As it was."""
        mine = Path(f"/sys/class/net/{self.name}/address").read_text().strip()
        told = _run("ip", "netns", "exec", self.name, "ip", "-o", "link", "show", "eth")
        theirs = told.partition("link/ether ")[2].split()[0]
        _run(*_neighbour(self.there, theirs, self.name))
        _run("ip", "netns", "exec", self.name, *_neighbour(self.here, mine, "eth"))


@contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """Some machines; skips the test where there can be none."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} missing: apt-get install iproute2 util-linux")
    made = []
    try:
        for number in range(1, count + 1):
            # A /30 for each wire, out of a range that is private and rarely used.
            net = f"10.{213 + os.getpid() % 20}.{number}"
            machine = Machine(f"fl{os.getpid() % 100000}n{number}", f"{net}.1", f"{net}.2")
            made.append(machine)
            try:
                _make(machine)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespace can be made here: {error.stderr.strip()}")
        yield made
    finally:
        for machine in made:
            with suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "del", machine.name)


def _make(machine: Machine) -> None:
    name, inside = machine.name, ("ip", "netns", "exec", machine.name)
    _run("ip", "netns", "add", name)
    _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth", "netns", name)
    _run("ip", "addr", "add", f"{machine.here}/30", "dev", name)
    _run("ip", "link", "set", name, "up")
    _run(*inside, "ip", "addr", "add", f"{machine.there}/30", "dev", "eth")
    _run(*inside, "ip", "link", "set", "eth", "up")
    _run(*inside, "ip", "link", "set", "lo", "up")
    machine.heal()


def _neighbour(address: str, hardware: str, device: str) -> tuple[str, ...]:
    entry = ("lladdr", hardware, "dev", device, "nud", "permanent")
    return ("ip", "neigh", "replace", address, *entry)


def _run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
    return done.stdout
