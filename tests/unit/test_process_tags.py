"""Programs of earlier owners of an agent end before the next owner begins; all others go on."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.system import process_identity, process_tags
from fleet.system.process_tags import Owner, ProcessTag, tag_descriptors, take_over

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there are marks on Linux only")

Started = Callable[[Owner], "subprocess.Popen[bytes]"]


@pytest.fixture
def dead() -> str:
    """The name of a process that has ended."""
    with subprocess.Popen(["sleep", "600"]) as process:
        name = process_identity.identity(process.pid)
        process.kill()
    return name


def forget() -> None:
    """As a process that has taken nothing over."""
    for sign in tag_descriptors():
        os.close(sign)
    process_tags._descriptors.clear()
    process_tags._owner_is_turn = False


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    """This process, in a store that no other test has."""
    monkeypatch.setenv(ProcessTag.OWNER, "")
    yield Owner.here(tmp_path, "a", str(tmp_path), 5)
    forget()


@pytest.fixture
def started() -> "Iterator[Started]":
    """Starts a program that works for an owner."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(owner: Owner) -> "subprocess.Popen[bytes]":
        env = {**os.environ, ProcessTag.OWNER: str(owner)}
        processes.append(subprocess.Popen(["sleep", "600"], env=env, start_new_session=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_what_the_dead_and_the_replaced_left_is_killed_and_nothing_else(
    mine: Owner, dead: str, tmp_path: Path, started: Started
) -> None:
    elsewhere = tmp_path / "elsewhere"
    ended = [
        started(left)
        for left in (
            replace(mine, worker=dead),
            replace(mine, child=dead),
            # In a store that was emptied, or without one.
            replace(mine, store="", fence=0, child=dead),
            # It lives, and does not know yet.
            replace(mine, fence=4),
            replace(Owner.here(elsewhere, "a", str(tmp_path), 4), child=dead),
        )
    ]
    goes_on = [
        started(other)
        for other in (
            mine,
            replace(mine, store="", fence=0),
            replace(Owner.here(tmp_path, "b", str(tmp_path), 4), child=dead),
            replace(Owner.here(elsewhere, "a", "another life", 4), child=dead),
            # A process of another machine, or of a container, whose end nobody here can know.
            replace(mine, worker="elsewhere/1/1", child="elsewhere/2/2"),
        )
    ]
    assert take_over(mine) == []
    assert [process.wait(10) for process in ended] == [-9] * len(ended)
    assert [process.poll() for process in goes_on] == [None] * len(goes_on)


def test_what_cannot_be_killed_in_time_is_told_and_nothing_is_taken_over(
    mine: Owner, dead: str, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = started(replace(mine, child=dead))
    with monkeypatch.context() as patched:
        patched.setattr(process_tags, "_TIMEOUT_S", -1.0)
        assert take_over(mine) == [left.pid]
    assert os.environ[ProcessTag.OWNER] == ""
    assert take_over(mine) == []
    assert os.environ[ProcessTag.OWNER] == str(mine)


def test_a_program_without_an_environment_is_found_by_what_it_has_open(
    mine: Owner, dead: str, tmp_path: Path
) -> None:
    theirs = replace(mine, child=dead)
    assert take_over(theirs) == []
    bare = subprocess.Popen(["sleep", "600"], env={}, pass_fds=tag_descriptors())
    try:
        forget()
        assert take_over(mine) == []
        assert bare.wait(10) == -9
    finally:
        bare.kill()


def test_a_mark_that_somebody_made_up_is_passed_over(mine: Owner) -> None:
    env = {**os.environ, ProcessTag.OWNER: "nonsense"}
    with subprocess.Popen(["sleep", "600"], env=env) as process:
        try:
            assert take_over(mine) == []
            assert process.poll() is None
        finally:
            process.kill()


def test_in_a_pool_a_turn_owns_what_it_starts_but_not_what_outlives_it(mine: Owner) -> None:
    """A tool server stays for the turns of other agents."""
    process_tags.drop_owner()
    assert ProcessTag.OWNER not in process_tags.own_tags()
    process_tags.tag_owner(mine)
    assert process_tags.own_tags()[ProcessTag.OWNER] == str(mine)
    assert len(tag_descriptors()) == 1
    assert ProcessTag.OWNER not in process_tags.kept_tags()
    process_tags.tag_owner(replace(mine, fence=6))
    assert len(tag_descriptors()) == 1
    process_tags.drop_owner()
    assert not tag_descriptors()
    assert ProcessTag.OWNER not in os.environ
