"""A short chaos run with a fixed seed, and one in which the power goes."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fleet.bench import chaos
from fleet.config.settings import load

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(300)]

BROKEN = ("lost", "doubled", "overlaps", "reordered", "repeated_calls", "stale_writes")
SEED = int(os.environ.get("FLEET_TEST_SEED", "1"))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path))
    load.cache_clear()


def run(**options: Any) -> dict[str, Any]:
    """The figures of a run in which no promise was broken."""
    told = chaos.run(seed=SEED, **options)
    print(f"seed {SEED}: {told['figures']}")
    figures: dict[str, Any] = told["figures"]
    assert {kind: figures[kind] for kind in BROKEN} == dict.fromkeys(BROKEN, 0)
    assert figures["kills"] == options["kills"]
    # Some may be buried, because they lost three workers; none is anywhere else.
    assert sum(figures["outcomes"].values()) == figures["accepted"] > 0
    return figures


def test_a_short_seed() -> None:
    figures = run(kills=30, seconds=30, agents=6)
    assert figures["interrupted"] > 0
    assert figures["completed"] > 0.9 * figures["accepted"]


def test_a_short_seed_on_a_pool() -> None:
    """Every kill of a worker interrupts all turns that it ran."""
    figures = run(kills=30, seconds=30, agents=6, hosts=2, pool=3)
    assert figures["interrupted"] > 0


def test_power_losses() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace tells what was fsynced: apt-get install strace")
    figures = run(kills=6, seconds=15, agents=3, power_loss=3)
    assert figures["faults"]["power"] == 3
