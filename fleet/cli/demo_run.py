"""The demo: the built-in fleet, end to end, on a broker and a data folder of its own.

Each way to address an event is tried once and shown as it happens. Each outcome is compared with
the expected one.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fleet.errors import ConfigError

#: The path of the server's binary; every other variable of ours would change the fleet.
_KEPT_NAME = "FLEET_REDIS_SERVER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One event, how it finds its agents, and who has to answer."""

    how: str
    event: dict[str, Any]
    agents: tuple[str, ...]
    #: The stage at which it has to fail; None: it has to complete.
    fails_at: str | None = None


SCENES = (
    Scene(
        how="to one agent",
        event={"to": "archie", "text": "Draft the release plan."},
        agents=("archie",),
    ),
    Scene(
        how="by a mention",
        event={"text": "@gem please review the draft."},
        agents=("gem",),
    ),
    Scene(
        how="to a group",
        event={"to": "@reviewers", "text": "Vote on the draft."},
        agents=("gem", "mini"),
    ),
    Scene(
        how="to a list",
        event={"to": ["olly", "scout"], "text": "Look for open questions."},
        agents=("olly", "scout"),
    ),
    Scene(
        how="by the default route",
        event={"text": "Is anybody there?"},
        agents=("archie",),
    ),
    Scene(
        how="to one that hangs",
        event={"to": "sleepy", "text": "Wake up."},
        agents=("sleepy",),
        fails_at="timeout",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of one dispatch of a scene."""

    scene: Scene
    agent: str
    record: dict[str, Any]

    @property
    def waited_s(self) -> float:
        """From acceptance to the start of the last attempt, in seconds."""
        accepted, started = (
            datetime.fromisoformat(self.record[name]) for name in ("accepted_at", "started_at")
        )
        return (started - accepted).total_seconds()

    @property
    def as_expected(self) -> bool:
        """True when the dispatch ended as its scene says."""
        if self.scene.fails_at is None:
            return bool(self.record["state"] == "completed")
        return self.record["state"] == "dead" and self.record.get("stage") == self.scene.fails_at


def surprises(results: Sequence[Result]) -> list[str]:
    """A sentence for each scene with an unexpected outcome."""
    found = []
    for scene in SCENES:
        reached = tuple(result.agent for result in results if result.scene is scene)
        if reached != scene.agents:
            found.append(f"the event {scene.how} reached {reached}, not {scene.agents}")
    for result in results:
        if not result.as_expected:
            state, stage = result.record["state"], result.record.get("stage", "no stage")
            found.append(f"the event {result.scene.how} ended as {state} ({stage})")
    return found


@contextmanager
def demo_folder() -> Iterator[Path]:
    """A data folder `.fleet/demo-...` below this directory, removed at the end with all in it.

    Within the block this process works in that folder and with no setting of the user's: no
    `fleet.toml` is found, and no FLEET_ variable but the server's binary. Raises ConfigError when
    the folder cannot be made.
    """
    home = Path.cwd()
    try:
        (home / ".fleet").mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="demo-", dir=home / ".fleet"))
    except OSError as error:
        raise ConfigError(
            f"{home / '.fleet'}: the demo cannot make its folder there ({error.strerror or error})."
        ) from error
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("FLEET_") and name != _KEPT_NAME]:
        del os.environ[name]
    ports = {"FLEET_API__PORT": "0", "FLEET_FLOWER__PORT": "0"}
    os.environ.update(FLEET_DATA_DIR=str(folder), **ports)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(home)
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder)
