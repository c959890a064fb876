"""Every key is declared once, with its life, and both languages build the same names."""

import re
import uuid
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.store import keys
from tests.fixtures.leaks import declared


def is_declared(key: str) -> bool:
    return any(row.pattern.fullmatch(key) for row in declared())


def test_the_table_is_read() -> None:
    assert len(declared()) > 20
    assert {row.type for row in declared()} <= {"string", "hash", "set", "zset", "list", "stream"}


@pytest.mark.parametrize(
    "key",
    [
        *(keys.EPOCH, keys.COUNTS, keys.BUS, keys.INDEX, keys.DEAD, keys.BEAT, keys.READY),
        *(keys.TOKENS, keys.ACCESS_NEWS),
        *(keys.due("a"), keys.agent("a"), keys.lease("a"), keys.commands("a"), keys.turn("sweep")),
        *(keys.dispatch("i"), keys.journal("i"), keys.outcome("i"), keys.event("d")),
        *(keys.payload("d"), keys.queue("a"), keys.pool("p"), keys.running("a")),
    ],
)
def test_a_name_that_python_builds_is_declared(key: str) -> None:
    assert is_declared(key)


def test_every_name_in_a_script_is_declared() -> None:
    scripts = resources.files("fleet.store") / "scripts"
    named = {
        name
        for script in scripts.iterdir()
        for name in re.findall(r"'(fleet:[\w:]+)'", script.read_text())
    }
    assert "fleet:bus" in named
    assert not {name for name in named if not is_declared(name + ("x" if name[-1] == ":" else ""))}


def test_each_script_names_the_keys_it_touches() -> None:
    """In its legend, as a prefix where an id follows."""
    scripts = resources.files("fleet.store") / "scripts"
    for script in scripts.iterdir():
        if script.name == "_lib.lua":
            continue
        legend, _, code = script.read_text().partition("\n\n")
        for name in re.findall(r"'(fleet:[\w:]+)'", code):
            assert name in legend, f"{script.name} touches {name}"


def test_each_script_that_ends_or_makes_a_dispatch_knows_of_chains() -> None:
    """`finish` goes on with the chain of what ends, which only `_chain.lua` can."""
    scripts = resources.files("fleet.store") / "scripts"
    for script in scripts.iterdir():
        legend, _, code = script.read_text().partition("\n\n")
        if script.name[0] != "_" and re.search(r"\b(finish|stop|create|drop)\(", code):
            assert re.search(r"^-- With .*_chain\b", legend, re.MULTILINE), script.name


def test_ids_never_change() -> None:
    """They are in people's logs and databases; a changed one would run an event twice."""
    assert keys.dispatch_id("fleet\n1", "archie") == "848f6b81-9daf-5a42-bb04-56dcebe2e5b4"
    assert keys.chain_id("fleet\n1", "release") == "2b9c6200-698f-5980-8b9b-b71595f9283c"
    stage = keys.stage_dispatch_id("fleet\n1", "release", 2, 1, "gem")
    assert stage == "5f76c950-2245-5e89-9306-9c9bb8c3f929"
    assert keys.event_digest("fleet\n1") == "3d46f77966e0e4bdfff372f4d9755981ce22d60e"


@given(st.text(), st.text(), st.sampled_from(["a", "b"]), st.sampled_from(["a", "b"]))
def test_one_event_and_agent_one_id(one: str, other: str, agent: str, another: str) -> None:
    same = (one, agent) == (other, another)
    assert (keys.dispatch_id(one, agent) == keys.dispatch_id(other, another)) is same
    assert re.fullmatch(r"[0-9a-f-]{36}", keys.dispatch_id(one, agent))
    assert re.fullmatch(r"[0-9a-f]{40}", keys.event_digest(one))


@given(st.text(), st.text())
def test_the_id_of_a_dispatch_is_a_uuid_of_version_5(event_key: str, agent: str) -> None:
    of_project = uuid.UUID("5d0b7b4e-3c1a-5f57-9f0e-6a1c7e9c2f11")
    expected = str(uuid.uuid5(of_project, f"{event_key}\n{agent}"))
    assert keys.dispatch_id(event_key, agent) == expected
