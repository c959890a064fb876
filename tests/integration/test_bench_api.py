"""The benchmarks of the API, each as small as it can be: they print what is promised. Not timed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.processes import no_leftovers

__all__ = ["no_leftovers"]

EACH_COUNT = {"p50_ms", "p99_ms", "burst_per_s", "cpu_us_per_delivery", "missed", "duplicated"}


def bench(name: str, folder: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "fleet", "bench", name, "--seed", "7", *options],
        env={**os.environ, "FLEET_DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir()), "it takes its folder away"
    printed: dict[str, Any] = json.loads(done.stdout)
    assert {"name", "at", "machine", "seed", "figures", "baseline", "ratio"} <= set(printed)
    return printed


@pytest.mark.timeout(120)
def test_the_api_s_speed(tmp_path: Path, no_leftovers: str) -> None:
    printed = bench("api", tmp_path, "--rounds", "1", "--events", "64")
    for side in ("figures", "baseline"):
        assert all(printed[side][figure] > 0 for figure in ("accepted_per_s", "p99_ms"))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_bus_s_speed(tmp_path: Path, no_leftovers: str) -> None:
    small = ("--clients", "3", "--seconds", "0.3", "--burst", "30", "--replay", "100")
    printed = bench("bus", tmp_path, *small, "--returning", "2")
    assert set(printed["figures"]) == {"3", "replay"}
    figures = printed["figures"]["3"]
    assert set(figures) == set(printed["baseline"]["3"]) == EACH_COUNT
    assert figures["p99_ms"] >= figures["p50_ms"] > 0
    assert figures["burst_per_s"] > 0
    assert (figures["missed"], figures["duplicated"]) == (0, 0)
    replay = printed["figures"]["replay"]
    assert (replay["missed"], replay["duplicated"]) == (0, 0)
