"""The memory of a container is what its control groups leave of the machine's."""

from pathlib import Path

from fleet.system.memory import group_limits, machine_bytes


def test_the_limits_of_all_groups_around_a_process_count(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/fleet.slice/api.service\n")
    inner = tmp_path / "fleet.slice" / "api.service"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text("1000000\n")
    assert list(group_limits(own, tmp_path)) == [1_000_000]


def test_the_first_version_of_control_groups_counts_too(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("4:cpu,cpuacct:/docker/1\n3:memory:/docker/1\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("2000000\n")
    assert list(group_limits(own, tmp_path)) == [2_000_000]


def test_a_machine_without_groups_has_what_is_built_in(tmp_path: Path) -> None:
    assert list(group_limits(tmp_path / "none", tmp_path)) == []
    assert machine_bytes() > 0
