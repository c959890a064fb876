"""`make demo`'s command: every way in, every outcome as it has to be, and nothing left behind."""

from pathlib import Path

import pytest

from fleet.cli.demo_run import SCENES, Result, surprises
from tests.e2e.running import place

pytestmark = pytest.mark.timeout(150)


def test_the_demo_runs_the_built_in_fleet_and_leaves_nothing(tmp_path: Path) -> None:
    # Neither a file nor a variable of the user's reaches the demo.
    config = '[agents.other]\nmodel = "nowhere/nothing"\n'
    with place(tmp_path, config, {"FLEET_BROKER_URL": "redis://127.0.0.1:1/0"}) as here:
        answer = here.fleet("demo")
        assert answer.code == 0, answer.out + answer.err
        assert "dispatch_failed, stage timeout" in answer.out
        for word in ("archie", "gem", "mini", "olly", "scout", "sleepy", "completed", "dead"):
            assert word in answer.out
        assert answer.out.index("dispatch_started") < answer.out.index("stage timeout:")
        assert not list((tmp_path / ".fleet").iterdir())


def test_a_surprise_is_told() -> None:
    results = [
        Result(scene=scene, agent=agent, record={"state": "completed"})
        for scene in SCENES
        for agent in scene.agents
    ]
    assert surprises(results) == ["the event to one that hangs ended as completed (no stage)"]
    assert surprises(results[1:])[0].startswith("the event to one agent reached ()")
