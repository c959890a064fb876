"""A reload is undone when a process does not come up under it."""

import asyncio
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fleet.config.settings import Settings
from fleet.store import Store
from fleet.supervisor import child, reload
from fleet.supervisor.processes import Addresses
from fleet.supervisor.reload import Reloads
from fleet.supervisor.running_config import NAME, RunningConfig
from fleet.supervisor.supervise import ProcessSpec
from fleet.system.backoff import Backoff
from fleet.system.reload_answer import ReloadAnswer, read_answer
from tests.fixtures.processes import no_leftovers
from tests.fixtures.scenes import POLITE, Scene, scene, spec

__all__ = ["no_leftovers", "scene"]

pytestmark = pytest.mark.usefixtures("no_leftovers")

#: Cannot start with a limit of 13.
PICKY = f"""
import json, os, sys
limit = json.load(open(os.environ["FLEET_CONFIG"]))["api"]["token_rate_per_s"]
if limit == 13:
    sys.exit("not with 13")
print("limit", limit, flush=True)
{POLITE}
"""
FILE = """
[fleet]
data_dir = "here"
[agents.a]
model = "echo/brief"
[api]
token_rate_per_s = {}
"""


def write(limit: int) -> None:
    Path("fleet.toml").write_text(FILE.format(limit))


def answer() -> ReloadAnswer:
    """The newest answer: before the first reload that of a fleet which is up."""
    found = read_answer(Path("here"))
    assert found is not None
    return found


def running_limit() -> float:
    """The limit that processes read when they start now."""
    return float(json.loads(Path("here", NAME).read_text())["api"]["token_rate_per_s"])


class Reloading:
    """A fleet of one process and its reloads."""

    def __init__(self, scene: Scene, store: Store) -> None:
        self.scene, self.config = scene, RunningConfig()
        self.config.publish()
        self.make = partial(Reloads, self.config, Addresses("", 0, None), store, 0)

    def processes(self, settings: Settings, *_: Any) -> list[ProcessSpec]:
        limit = settings.api.token_rate_per_s

        async def ready() -> bool:
            starts = [line for _, line in self.scene.lines if "limit" in line or "not" in line]
            return starts[-1:] == [f"limit {limit:g}"]

        return [spec("api", PICKY, ready=ready)]

    async def reload(self, limit: int) -> ReloadAnswer:
        """Write the file and reload: the answer."""
        write(limit)
        before = answer()
        self.reloads.request()
        while (now := answer()) == before:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)
        return now

    def play(self, act: Any) -> None:
        async def acting(scene: Scene) -> None:
            self.reloads = self.make(scene.supervisor, lambda _: [], lambda _: None)
            running = asyncio.create_task(self.reloads.run())
            try:
                await scene.supervisor.ready.wait()
                while read_answer(Path("here")) is None:  # noqa: ASYNC110 - a file
                    await asyncio.sleep(0.01)
                await act(self)
            finally:
                running.cancel()

        assert self.scene.play(self.processes(self.config.settings), acting) == 0


@pytest.fixture
def reloading(
    scene: Scene, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Reloading:
    for name in [name for name in os.environ if name.startswith("FLEET_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEET_CONFIG", "fleet.toml")  # so that it is put back
    monkeypatch.setattr(child, "BACKOFF", Backoff(0.02, 0.5))
    Path("here").mkdir()
    write(1)
    made = Reloading(scene, store)
    monkeypatch.setattr(reload, "fleet_processes", made.processes)
    return made


def test_where_a_process_does_not_come_up_the_configuration_before_is_back(
    reloading: Reloading,
) -> None:
    async def act(fleet: Reloading) -> None:
        refused = await fleet.reload(13)
        assert not refused.ok
        (line,) = refused.lines
        fault = "nothing was changed: api ended 5 times before it was ready: not with 13"
        assert line.startswith(fault)
        assert running_limit() == 1
        assert fleet.scene.said("api", "^limit 1$") == 2, "it runs with the settings of before"
        # A file that was mended is taken, whatever the one before did.
        assert (await fleet.reload(2)).ok
        assert fleet.scene.said("api", "^limit 2$") == 1

    reloading.play(act)
