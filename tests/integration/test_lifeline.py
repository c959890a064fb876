"""No process outlives the supervisor that started it, not even one that is killed."""

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from tests.fixtures.processes import marked, no_leftovers, wait_until
from tests.fixtures.scenes import LIVE, POLITE, STUBBORN

__all__ = ["no_leftovers"]

pytestmark = pytest.mark.usefixtures("no_leftovers")


FLEET = """
import asyncio, sys
from pathlib import Path
from fleet.supervisor.supervise import ProcessSpec, Supervisor
follow = "from fleet.system.lifeline import watch_lifeline; watch_lifeline(grace_s=.3)\\n"
specs = [
    ProcessSpec(str(n), [sys.executable, "-c", follow + program], 1)
    for n, program in enumerate(sys.argv[2:])
]
sink = lambda name, line: print(name, line, flush=True)
supervisor = Supervisor(specs, sink=sink, log_dir=Path(sys.argv[1]))
asyncio.run(supervisor.run(asyncio.Event()))
"""


def test_nobody_outlives_a_supervisor_that_is_killed(no_leftovers: str, tmp_path: Path) -> None:
    busy = "import os; os.fork(); os.write(1, b'here\\n')\nwhile True: pass"
    tool = "import subprocess; subprocess.Popen(['sleep', '60'], process_group=0)\n" + POLITE
    programs = [POLITE, STUBBORN, busy, tool]
    fleet = subprocess.Popen(
        [sys.executable, "-c", FLEET, str(tmp_path), *programs], stdout=subprocess.PIPE, text=True
    )
    with fleet:
        try:
            here = (line for line in fleet.stdout or () if "here" in line)
            assert len(list(islice(here, 5))) == 5
        finally:
            fleet.kill()
    wait_until(lambda: not marked(no_leftovers))


def test_a_child_started_after_the_supervisors_death_ends_at_once(
    no_leftovers: str,
) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    program = f"from fleet.system.lifeline import watch_lifeline; watch_lifeline(); {LIVE}"
    env = os.environ | {"FLEET_LIFELINE_FD": str(reading)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], env=env, pass_fds=[reading], timeout=10, check=False
        )
    finally:
        os.close(reading)
    assert done.returncode == -signal.SIGTERM


def test_without_a_supervisor_there_is_nothing_to_follow() -> None:
    program = """if True:
        import os, threading
        from fleet.system.lifeline import watch_lifeline
        watch_lifeline()
        print(threading.active_count(), os.environ.get("FLEET_LIFELINE_FD"))
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 None\n"
