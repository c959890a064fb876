"""SIGHUP stops what was started on a terminal that is gone, and else asks for a reload."""

import subprocess
import sys

import pytest

#: Runs on a terminal of its own, which it closes in between or keeps; prints what SIGHUP means.
PROGRAM = """
import os, pty, signal, sys
from fleet.system.hangup import Hangup
closes, ignored = sys.argv[1:] == ["closes"], sys.argv[1:] == ["nohup"]
read, write = os.pipe()
pid, terminal = pty.fork()
if not pid:
    if ignored:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hangup = Hangup()
    signal.signal(signal.SIGHUP, lambda *_: os.write(write, f"{hangup.meaning().name} ".encode()))
    os.write(write, b"up ")
    while True:
        signal.pause()
assert os.read(read, 100) == b"up "
if closes or ignored:
    os.close(terminal)
    print(os.read(read, 100).decode(), end="", flush=True)
os.kill(pid, signal.SIGHUP)
print(os.read(read, 100).decode())
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize(
    ("terminal", "meanings"),
    [("stays", "RELOAD"), ("closes", "STOP RELOAD"), ("nohup", "NOTHING RELOAD")],
)
def test_what_a_hangup_means(terminal: str, meanings: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, terminal],
        capture_output=True,
        text=True,
        timeout=55,
        check=True,
    )
    assert done.stdout.split() == meanings.split()
