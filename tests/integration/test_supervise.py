"""The supervisor with real processes: order, restarts, stops and output."""

import asyncio
import os
import re
import signal
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from fleet.supervisor import child, output
from fleet.system.backoff import Backoff
from tests.fixtures.processes import gone, marked, no_leftovers, wait_until
from tests.fixtures.scenes import LIVE, POLITE, STUBBORN, Scene, scene, spec

__all__ = ["no_leftovers", "scene"]

pytestmark = pytest.mark.usefixtures("no_leftovers")


def test_a_stage_starts_when_the_one_before_is_ready_and_stops_before_it(
    scene: Scene, tmp_path: Path
) -> None:
    flag = tmp_path / "ready"
    slow = f"import time, pathlib; time.sleep(.2); pathlib.Path({str(flag)!r}).touch()\n{POLITE}"
    look = f"import pathlib; print('flag', pathlib.Path({str(flag)!r}).exists(), flush=True)\n"

    async def flagged() -> bool:
        return flag.exists()

    async def act(scene: Scene) -> None:
        await scene.supervisor.ready.wait()
        await scene.until_said("first", "here")
        await scene.until_said("second", "here")

    specs = [spec("second", look + POLITE, 2), spec("first", slow, 1, ready=flagged)]
    assert scene.play(specs, act) == 0

    assert scene.said("second", "flag True")
    assert scene.order("^started") == ["first", "second"]
    assert scene.order("^bye$") == ["second", "first"]
    assert scene.order("^ended with exit code 0$") == ["second", "first"]


def test_a_killed_process_is_started_again(scene: Scene) -> None:
    async def act(scene: Scene) -> None:
        await scene.until_said("one", "here")
        before = scene.supervisor.pids["one"]
        os.kill(before, signal.SIGKILL)
        await scene.until_said("one", "here", times=2)
        assert scene.supervisor.pids["one"] != before

    scene.play([spec("one", LIVE)], act)
    assert scene.said("one", r"^ended with SIGKILL, starts again in 0\.1 s$") == 1


def test_a_crash_loop_is_reported_once_and_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "BACKOFF", Backoff(0.001, 30.0))

    async def act(scene: Scene) -> None:
        await scene.until_said("flaky", "^started", times=child.CRASH_LOOP + 2)

    scene.play([spec("flaky", "raise SystemExit(3)"), spec("other", LIVE)], act)
    assert scene.crashed == [("flaky", 3)]
    assert scene.said("other", "^started") == 1


def test_pauses_grow_while_a_process_keeps_ending(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "BACKOFF", Backoff(0.1, 0.3))

    async def act(scene: Scene) -> None:
        await scene.until_said("flaky", "starts again", times=4)

    scene.play([spec("flaky", "raise SystemExit(3)")], act)
    pauses = [line.split()[-2] for name, line in scene.lines if "starts again" in line]
    assert pauses == ["0.1", "0.2", "0.3", "0.3"]


def test_a_steady_life_ends_the_back_off(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "STEADY_S", 0.0)
    monkeypatch.setattr(child, "BACKOFF", Backoff(0.001, 30.0))

    async def act(scene: Scene) -> None:
        await scene.until_said("flaky", "^started", times=child.CRASH_LOOP + 2)

    scene.play([spec("flaky", "raise SystemExit(3)")], act)
    assert scene.crashed == []


def test_a_process_that_does_not_end_is_killed_after_its_grace(scene: Scene) -> None:
    async def act(scene: Scene) -> None:
        await scene.until_said("mule", "here")

    scene.play([spec("mule", STUBBORN, stop_grace_s=0.2)], act)
    assert scene.said("mule", "^no$") == 1
    assert scene.said("mule", r"^still runs 0\.2 s after its stop signal: killed$") == 1
    assert scene.said("mule", "^ended with SIGKILL$") == 1


def test_the_stop_signal_is_the_processes_own(scene: Scene) -> None:
    async def act(scene: Scene) -> None:
        await scene.until_said("one", "here")

    scene.play([spec("one", LIVE, stop_signal=signal.SIGQUIT)], act)
    assert scene.said("one", "^ended with SIGQUIT$") == 1


FORKS = """
import os, sys, time
if os.fork() == 0:
    print('child', os.getpid(), flush=True)
    time.sleep(60)
time.sleep(.1)
"""


def test_the_session_ends_with_its_leader(scene: Scene) -> None:
    async def act(scene: Scene) -> None:
        await scene.until_said("one", "^ended")

    scene.play([spec("one", FORKS, restart=False)], act)
    (line,) = (line for _, line in scene.lines if line.startswith("child"))
    wait_until(lambda: gone(int(line.split()[1])))


DETACHES = """
import os, time
if os.fork() == 0:
    os.setsid()
    print('child', os.getpid(), flush=True)
    time.sleep(60)
time.sleep(.1)
"""


def test_who_leaves_the_session_and_holds_the_output_cannot_delay_the_restart(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, no_leftovers: str
) -> None:
    monkeypatch.setattr(child, "OUTPUT_TIMEOUT_S", 0.05)

    async def act(scene: Scene) -> None:
        await scene.until_said("one", "^started", times=2)

    scene.play([spec("one", DETACHES)], act)
    for pid in [int(line.split()[1]) for _, line in scene.lines if line.startswith("child")]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not marked(no_leftovers))


def test_the_first_ctrl_c_stops_in_order_and_the_second_kills(scene: Scene) -> None:
    async def act(scene: Scene) -> None:
        await scene.until_said("mule", "here")
        await scene.until_said("below", "here")
        os.kill(os.getpid(), signal.SIGINT)
        await scene.until_said("mule", "^no$")
        assert scene.stop.is_set()
        assert "below" in scene.supervisor.pids
        os.kill(os.getpid(), signal.SIGINT)
        await scene.until_said("below", "^ended")

    specs = [
        spec("below", STUBBORN, 1, stop_grace_s=60),
        spec("mule", STUBBORN, 2, stop_grace_s=60),
    ]
    began = time.monotonic()
    assert scene.play(specs, act) == 130
    assert time.monotonic() - began < 10
    assert sorted(scene.order("^ended with SIGKILL$")) == ["below", "mule"]


def test_children_have_a_session_a_lifeline_and_the_given_environment(scene: Scene) -> None:
    program = """if True:
        import os
        lifeline = os.environ["FLEET_LIFELINE_FD"].isdigit()
        print(os.getsid(0) == os.getpid(), lifeline, os.environ["MODE"])
    """

    async def act(scene: Scene) -> None:
        await scene.until_said("one", "^ended")

    scene.play([spec("one", program, env={"MODE": "test"}, restart=False)], act)
    assert scene.said("one", "^True True test$") == 1


def test_lines_are_cut_kept_in_a_log_and_the_log_is_turned_over(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(output, "LINE_BYTES_MAX", 10)
    monkeypatch.setattr(output, "LOG_BYTES_MAX", 100)
    program = (
        "import sys; sys.stdout.buffer.write(b'a' * 25 + b'\\n' + b'\\xff\\x1b[2J\\n' + b'b' * 200)"
    )

    async def act(scene: Scene) -> None:
        await scene.until_said("one", "^ended")

    scene.play([spec("one", program, restart=False)], act)
    printed = [line for _, line in scene.lines][1:-1]
    assert printed == ["a" * 10, "a" * 10, "a" * 5, "\ufffd[2J", *["b" * 10] * 20]
    kept = [(tmp_path / "log" / name).stat().st_size for name in ("one.log", "one.log.1")]
    assert all(0 < size <= 100 + 60 for size in kept)


def test_the_parts_of_a_process_have_outputs_and_logs_of_their_own(
    scene: Scene, tmp_path: Path
) -> None:
    program = """
import os, subprocess, sys
from fleet.system.output_guard import guard_output, redirect_output
from fleet.system.output_pipes import receive_outputs
guard_output()
outputs = receive_outputs()
print("whole", len(outputs), flush=True)
if not os.fork():
    os.close(outputs["part.b"])
    redirect_output(outputs["part.a"])
    print("part a")
    subprocess.run(["sh", "-c", "echo its child; echo and errors >&2"])
    os._exit(0)
os.wait()
os.write(outputs["part.b"], b"part b\\n")
"""

    async def act(scene: Scene) -> None:
        await scene.until_said("one", "^ended")

    parts = ("part.a", "part.b")
    scene.play([spec("one", program, restart=False, outputs=parts)], act)
    assert {name: [line for other, line in scene.lines if other == name] for name in parts} == {
        "part.a": ["part a", "its child", "and errors"],
        "part.b": ["part b"],
    }
    assert scene.said("one", "^whole 2$") == 1
    log = (tmp_path / "log" / "part.a.log").read_text()
    assert re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z .+\n){3}", log)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_log_that_cannot_be_written_is_said_once_and_stops_nothing(
    scene: Scene, tmp_path: Path
) -> None:
    log = tmp_path / "log" / "one.log"
    log.parent.mkdir()
    log.symlink_to("/dev/full")

    async def act(scene: Scene) -> None:
        await scene.until_said("one", "here")
        log.unlink()
        os.kill(scene.supervisor.pids["one"], signal.SIGKILL)
        await scene.until_said("one", "here", times=2)

    assert scene.play([spec("one", LIVE)], act) == 0
    assert scene.said("one", r"its log cannot be written \(No space left on device\)") == 1
    notice, *rest = log.read_text().splitlines()
    assert notice == "(2 lines were dropped: they could not be written)", "its start, its word"
    assert rest[0].endswith("Z ended with SIGKILL, starts again in 0.1 s")


def test_processes_cost_the_supervisor_no_open_files(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "BACKOFF", Backoff(0.001, 0.001))
    counts: list[int] = []

    async def act(scene: Scene) -> None:
        for times in (3, 10):
            await scene.until_said("flaky", "^ended", times=times)
            counts.append(psutil.Process().num_fds())

    scene.play([spec("flaky", "raise SystemExit(3)")], act)
    assert counts[1] - counts[0] <= 2


def test_processes_are_added_taken_away_and_started_anew(scene: Scene) -> None:
    async def act(scene: Scene) -> None:
        for name in ("stays", "changes", "goes"):
            await scene.until_said(name, "here")
        before = scene.supervisor.pids
        changed = spec("changes", POLITE.replace("here", "changed"))
        stays = spec("stays", POLITE)
        await scene.supervisor.change([stays, changed, spec("new", POLITE)], {"changes"})
        await scene.until_said("new", "here")
        await scene.until_said("changes", "changed")
        assert scene.supervisor.pids.keys() == {"stays", "changes", "new"}
        assert scene.supervisor.pids["stays"] == before["stays"]
        assert not scene.supervisor.failing

    scene.play([spec(name, POLITE) for name in ("stays", "changes", "goes")], act)
    assert scene.order("^bye$")[:2] in (["changes", "goes"], ["goes", "changes"])
    assert scene.said("changes", "starts with the changed configuration") == 1


def test_a_process_that_never_started_well_starts_at_once_with_a_change(scene: Scene) -> None:
    async def act(scene: Scene) -> None:
        await scene.until_said("flaky", "starts again", times=4)
        await scene.supervisor.change([spec("flaky", POLITE)], {"flaky"})
        await scene.until_said("flaky", "here")

    scene.play([spec("flaky", "raise SystemExit(3)")], act)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_a_signal_asks_for_a_reload_and_stops_nothing(scene: Scene, number: signal.Signals) -> None:
    asked = asyncio.Event()

    async def act(scene: Scene) -> None:
        await scene.until_said("one", "here")
        os.kill(os.getpid(), number)
        await asyncio.wait_for(asked.wait(), 10)
        assert not scene.stop.is_set()

    scene.play([spec("one", LIVE)], act, on_reload=asked.set)
