"""The benchmarks, each as small as it can be: they run, and print what is promised. Not timed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.bench import dispatch, footprint, intake, recovery, route, startup
from fleet.bench._harness import parse_options, percentile, ratio
from fleet.errors import ConfigError
from tests.fixtures.processes import no_leftovers

__all__ = ["no_leftovers"]

FIGURES = {
    "dispatch": {"idle_p50_ms", "idle_p99_ms", "events_per_s_1", "events_per_s_20"},
    "intake": {"single_per_s", "batch_per_s"},
    "footprint": {"pss_mib_per_agent", "ready_s", "agents", "idle_cpu_pct"},
    "recovery": {"child", "worker", "host", "broker"},
    "route": {"decisions_per_s"},
    "startup": {"ready_s", "cpu_s"},
    "locks": {"session_us", "rw_us", "contended_us", "max_wait_ratio"},
}
#: Of `endurance`: what must be 0, whatever the machine.
NEVER = ("repeated_calls", "lost", "doubled", "overlaps", "stale_writes")
#: These have test files of their own.
ELSEWHERE = {"api", "bus", "chaos"}
TINY = {
    "dispatch": ["--agents", "2", "--rounds", "1", "--idle", "3", "--events", "10"],
    "intake": ["--agents", "2", "--rounds", "1", "--events", "30", "--batch", "10"],
    "footprint": ["--agents", "1", "--rounds", "1", "--seconds", "1", "--also", "none"],
    "route": ["--agents", "2", "--rounds", "1", "--rules", "10", "--seconds", "0.01"],
    "recovery": ["--agents", "1", "--kills", "1"],
    "startup": ["--rounds", "1"],
    "locks": [
        "--rounds",
        "1",
        "--alone",
        "5",
        "--clients",
        "6",
        "--processes",
        "2",
        "--turns",
        "3",
    ],
    "endurance": ["--agents", "2", "--seconds", "6", "--linger-s", "1", "--restarts", "1"],
}


def bench(name: str, folder: Path) -> dict[str, Any]:
    """The output of `fleet bench NAME`, run as a person would run it."""
    done = subprocess.run(
        [sys.executable, "-m", "fleet", "bench", name, "--seed", "7", *TINY[name]],
        env={**os.environ, "FLEET_DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr, "progress goes to standard error"
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def check(printed: dict[str, Any], name: str) -> None:
    """The shape that programs rely on."""
    assert {"name", "at", "machine", "seed", "figures", "baseline", "ratio"} <= set(printed)
    assert (printed["name"], printed["seed"]) == (name, 7)
    assert {"cores", "load", "python", "broker", "fsync"} <= set(printed["machine"])
    assert set(printed["figures"]) == FIGURES[name]
    assert set(printed["ratio"]) == FIGURES[name]
    assert set(printed["baseline"]) == FIGURES[name] | {"of"}


@pytest.mark.parametrize("name", ["dispatch", "intake", "route", "locks", "startup"])
@pytest.mark.timeout(180)
def test_speed(name: str, tmp_path: Path, no_leftovers: str) -> None:
    printed = bench(name, tmp_path)
    check(printed, name)
    for side in ("figures", "baseline"):
        assert all(printed[side][figure] > 0 for figure in FIGURES[name])
    assert not list(tmp_path.iterdir()), "it takes its folder away"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_endurance(tmp_path: Path, no_leftovers: str) -> None:
    """No long turn runs twice while connections are cut and the broker is killed."""
    printed = bench("endurance", tmp_path)
    figures = printed["figures"]
    assert (figures["turns"], figures["completed"], figures["runs_max"]) == (2, 2, 1)
    assert {name: figures[name] for name in NEVER} == dict.fromkeys(NEVER, 0)
    assert figures["cuts"] >= 2
    assert figures["broker_restarts"] == 1


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_footprint(tmp_path: Path, no_leftovers: str) -> None:
    printed = bench("footprint", tmp_path)
    check(printed, "footprint")
    assert printed["figures"]["agents"] == printed["baseline"]["agents"] == 1
    # Something like a Python process, whatever the machine.
    assert all(20 < printed[of]["pss_mib_per_agent"] < 2000 for of in ("baseline", "figures"))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_recovery(tmp_path: Path, no_leftovers: str) -> None:
    printed = bench("recovery", tmp_path)
    check(printed, "recovery")
    for kind in FIGURES["recovery"]:
        for side in ("figures", "baseline"):
            found = printed[side][kind]
            assert found["n"] == 1
            assert 0 < found["p50_s"] == found["p99_s"] < recovery.TIMEOUT_S, f"{side} {kind}"


@pytest.mark.parametrize("module", [dispatch, intake, footprint, recovery, route])
def test_each_names_its_options(module: Any) -> None:
    assert parse_options(module.OPTIONS, {"seed": "3"}) == {**module.OPTIONS, "seed": 3}
    with pytest.raises(ConfigError, match="known are seed, agents"):
        module.run(sed=3)
    with pytest.raises(ConfigError, match="above zero"):
        module.run(agents="0")


def test_startup_needs_an_installed_checkout(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(ConfigError, match=r"--against: .*fleet does not exist; run `make venv`"):
        startup.run(against=str(tmp_path))


def test_every_benchmark_is_tested(tmp_path: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "fleet", "bench", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert set(json.loads(listed.stdout)) == set(TINY) | ELSEWHERE


def test_a_percentile_is_a_measured_value() -> None:
    hundred = [float(n) for n in range(100, 0, -1)]
    assert [percentile(hundred, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile([3.0], 0.99) == 3


def test_a_ratio_without_a_divisor_is_none() -> None:
    assert ratio({"a": 1.0, "b": {"c": 3.0}}, {"a": 0.0, "b": {"c": 2.0}}) == {
        "a": None,
        "b": {"c": 1.5},
    }
