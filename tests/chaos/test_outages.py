"""A few outages of the broker of `fleet up`, with a fixed seed and load by every door."""

import os
from pathlib import Path
from typing import Any

import pytest

from fleet.bench import chaos
from fleet.bench._auditor import KINDS
from fleet.bench._outages import NOT_PROMISED
from fleet.config.settings import load

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(300)]

SEED = int(os.environ.get("FLEET_TEST_SEED", "1"))
OUTAGES = 3


def test_a_few_outages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path))
    load.cache_clear()
    told = chaos.run(seed=SEED, outages=OUTAGES, agents=2)
    print(f"seed {SEED}: {told['figures']}")
    figures: dict[str, Any] = told["figures"]
    promised = [kind for kind in KINDS if kind not in NOT_PROMISED]
    assert {kind: figures[kind] for kind in promised} == dict.fromkeys(promised, 0)
    assert told["broken"] == 0
    assert sum(figures["outages"].values()) == OUTAGES
    assert sum(figures["outcomes"].values()) >= figures["accepted"] > 0
    assert figures["accepted_by_door"].keys() >= {"http"}
    assert list(tmp_path.iterdir()) == [], "nothing is kept of a run that kept its promises"
