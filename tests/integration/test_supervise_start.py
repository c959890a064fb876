"""A fleet that cannot start, or must end: each in one sentence, with nothing left running."""

import asyncio
from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.supervisor import child
from fleet.supervisor.supervise import ProcessSpec
from fleet.system.backoff import Backoff
from tests.fixtures.processes import no_leftovers
from tests.fixtures.scenes import LIVE, POLITE, Scene, scene, spec

__all__ = ["no_leftovers", "scene"]

pytestmark = pytest.mark.usefixtures("no_leftovers")


async def never() -> bool:
    return False


def test_who_is_not_ready_in_time_stops_the_fleet(scene: Scene) -> None:
    specs = [spec("good", POLITE), spec("slow", LIVE, 2, ready=never, ready_timeout_s=0.5)]
    with pytest.raises(FleetError, match=r"^slow was not ready within 0\.5 s: here$"):
        scene.play(specs)
    assert scene.said("good", "^ended with exit code 0$") == 1


async def hangs() -> bool:
    await asyncio.sleep(60)
    return True


def test_a_question_for_readiness_that_hangs_is_cut_off(scene: Scene) -> None:
    with pytest.raises(FleetError, match="not ready within"):
        scene.play([spec("slow", LIVE, ready=hangs, ready_timeout_s=0.3)])


def test_who_ends_before_it_is_ready_is_quoted(scene: Scene) -> None:
    program = "print('loading'); raise SystemExit('port 5555 is in use')"
    specs = [spec("good", LIVE), spec("api", program, ready=never, restart=False)]
    with pytest.raises(
        FleetError, match=r"^api ended with exit code 1 before it was ready: port 5555 is in use$"
    ):
        scene.play(specs)


def test_who_crashes_again_and_again_before_it_is_ready_is_quoted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "BACKOFF", Backoff(0.001, 30.0))
    with pytest.raises(FleetError, match=r"^api ended \d+ times before it was ready: no$"):
        scene.play([spec("api", "raise SystemExit('no')", ready=never)])


def test_a_program_that_is_not_there_is_named(scene: Scene) -> None:
    missing = ProcessSpec("api", ["/nowhere/api"], 1, restart=False)
    with pytest.raises(FleetError, match=r"/nowhere/api cannot be started \(No such file"):
        scene.play([missing])


def test_a_stop_while_starting_is_no_failure(scene: Scene) -> None:
    async def act(scene: Scene) -> None:
        await scene.until_said("slow", "here")

    assert scene.play([spec("slow", POLITE, ready=never), spec("late", LIVE, 2)], act) == 0
    assert not scene.said("late", "")
    assert not scene.supervisor.ready.is_set()


def test_a_log_folder_that_cannot_be_made_is_told_and_stops_nothing(
    scene: Scene, tmp_path: Path
) -> None:
    (tmp_path / "log").write_text("")

    async def act(scene: Scene) -> None:
        await scene.until_said("one", "here")

    assert scene.play([spec("one", LIVE)], act) == 0
    assert scene.said("one", r"its log cannot be written \(File exists\)") == 1


def test_a_hook_runs_beside_the_processes_and_ends_after_them(scene: Scene) -> None:
    seen: list[str] = []

    async def hook() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.extend(line for _, line in scene.lines)

    async def act(scene: Scene) -> None:
        await scene.until_said("one", "here")

    scene.play([spec("one", POLITE)], act, hooks=[hook])
    assert seen[-1] == "ended with exit code 0"


def test_a_hook_that_fails_stops_the_fleet_in_order(scene: Scene) -> None:
    async def hook() -> None:
        await scene.until_said("one", "here")
        raise FleetError("the broker is gone")

    with pytest.raises(FleetError, match="the broker is gone"):
        scene.play([spec("one", POLITE)], scene_without_end, hooks=[hook])
    assert scene.said("one", "^ended with exit code 0$") == 1


async def scene_without_end(_scene: Scene) -> None:
    await asyncio.Event().wait()


def test_a_sink_that_fails_stops_the_fleet(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_name: str, line: str) -> None:
        if line == "here":
            raise OSError(5, "the terminal is gone")

    ended: list[bool] = []

    async def hook() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    monkeypatch.setattr(scene, "_take", broken)
    with pytest.raises(OSError, match="the terminal is gone"):
        scene.play([spec("one", LIVE), spec("two", LIVE)], scene_without_end, hooks=[hook])
    assert ended
