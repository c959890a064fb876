"""`fleet bench locks` prints what is promised."""

from pathlib import Path

import pytest

from fleet.bench import locks
from fleet.settings import load


def test_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load.cache_clear()
    told = locks.run(rounds=1, alone=5, clients=6, processes=2, turns=3)
    load.cache_clear()
    names = {"session_us", "rw_us", "contended_us", "max_wait_ratio"}
    assert set(told["figures"]) == set(told["ratio"]) == names
    assert set(told["baseline"]) == names | {"of"}
    assert all(figure > 0 for figure in told["figures"].values())
