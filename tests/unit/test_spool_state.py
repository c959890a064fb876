"""The fold of the spool's records: whatever order the segments are read in, the state is one."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet.intake.spool.segments import StoredRecord
from fleet.intake.spool.state import SpoolState


def stored(metas: list[dict[str, Any]]) -> list[StoredRecord]:
    return [StoredRecord(meta, Path("segment"), 0, 0, 10) for meta in metas]


def event(seq: int) -> dict[str, Any]:
    return {
        "k": "event",
        "seq": seq,
        "digest": f"digest {seq}",
        "content": "",
        "agents": ["a", "b"],
        "dispatches": {f"a{seq}": "a", f"b{seq}": "b"},
        "priority": 5,
        "at": [0.0, 0.0, ""],
    }


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The records of a few events, in the order of time."""
    found = list[dict[str, Any]]()
    for seq in range(1, draw(st.integers(1, 4)) + 1):
        found.append(event(seq))
        for agent in draw(st.sets(st.sampled_from("ab"))):
            base = {"seq": seq, "id": f"{agent}{seq}"}
            for attempt in range(1, draw(st.integers(1, 3)) + 1):
                found.append({"k": "begun", **base, "agent": agent, "attempt": attempt})
                found.append({"k": "step", **base, "key": str(attempt), "entry": "paid"})
                if draw(st.booleans()):
                    found.append({"k": "cut", **base, "attempt": attempt})
            last = draw(st.sampled_from(["", "left", "ended"]))
            if last:
                found.append({"k": last, **base, "agent": agent, "losses": 0})
    return found


def fold(metas: list[dict[str, Any]], imported: int) -> Any:
    state = SpoolState()
    state.apply(stored(metas))
    state.forget(imported)
    runs = {
        key: (run.seq, run.agent, run.begun, run.cut, run.steps, run.left, run.ended)
        for key, run in state.runs.items()
    }
    entries = list(state.ordered())
    return entries, runs, state.bytes, state.last, +state.pending


@given(histories(), st.data())
def test_the_order_of_the_segments_is_irrelevant(
    history: list[dict[str, Any]], data: st.DataObject
) -> None:
    segments: list[list[dict[str, Any]]] = [[], [], []]
    for meta in history:
        data.draw(st.sampled_from(segments)).append(meta)
    mixed = list[dict[str, Any]]()
    while any(segments):
        mixed.append(data.draw(st.sampled_from([one for one in segments if one])).pop(0))
    imported = data.draw(st.integers(0, 4))
    assert fold(mixed, imported) == fold(history, imported)


@given(histories(), st.integers(0, 4))
def test_what_is_imported_before_or_after_it_is_read_is_forgotten(
    history: list[dict[str, Any]], imported: int
) -> None:
    state = SpoolState()
    state.forget(imported)
    state.apply(stored(history))
    entries, _, size, last, pending = fold(history, imported)
    assert (list(state.ordered()), state.bytes, state.last, +state.pending) == (
        entries,
        size,
        last,
        pending,
    )


@given(histories())
def test_a_run_written_out_reads_the_same(history: list[dict[str, Any]]) -> None:
    state, again = SpoolState(), SpoolState()
    state.apply(stored(history))
    again.apply(stored([meta for run in state.runs.values() for meta in run.records]))
    assert again.runs == state.runs
