"""The spool on disk: what goes in comes out, once, in order, or is refused."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.config.settings import parse
from fleet.errors import BrokerUnavailable, IdempotencyConflict, Refused
from fleet.intake.spool import folder
from fleet.intake.spool.folder import SpoolFull
from fleet.intake.spool.segments import encode
from fleet.intake.spool.spool import Size, Spool, read_entry
from fleet.ledger import Accepted, ImportedEvent
from fleet.store import keys
from routing import Event, Plan

NOW = "2026-01-01T00:00:00Z"


def event(number: int, text: str = "hello") -> Event:
    return Event.parse({"to": "a", "text": text}, new_id=f"e{number}", now=NOW)


def plan(*agents: str) -> Plan:
    return Plan(agents=agents or ("a",), reason="to: a")


def spool_in(
    data_dir: Path, pending_max: int = 1000, broker_url: str | None = None, **limits: int
) -> Spool:
    agent = {"runner": "python", "python": "nobody:nothing", "max_pending": pending_max}
    fleet = {"data_dir": str(data_dir), **({"broker_url": broker_url} if broker_url else {})}
    tables: dict[str, Any] = {"fleet": fleet, "agents": {"a": agent, "b": agent}}
    return Spool(parse({**tables, "spool": {"direct": False, **limits}}))


def holds(spool: Spool) -> bool:
    return spool.holds


def waiting(spool: Spool, count: int = 100) -> list[ImportedEvent]:
    return list(spool.first(count)[0].values())


def ids(spool: Spool) -> list[str]:
    return [one.event.id for one in waiting(spool)]


def reasons(spool: Spool) -> list[str]:
    return [one.reason for _, state in spool.quarantined() for one in state.ordered()]


def test_it_answers_with_the_ids_that_the_ledger_will_use(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    assert not holds(spool)
    back = replace(plan("a", "b"), upstream=True)
    (answer,) = spool.store([(event(1), back)])
    assert answer == Accepted(
        event_id="e1",
        dispatches=tuple((keys.dispatch_id(event(1).key, agent), agent) for agent in "ab"),
        duplicate=False,
    )
    assert holds(spool)
    (kept,) = waiting(spool)
    assert (kept.event, kept.plan) == (event(1), back)
    assert kept.age_s >= 0


def test_a_known_event_is_answered_and_not_stored_twice(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    first, again = spool.store([(event(1), plan("a")), (event(1), plan("b"))])
    assert isinstance(first, Accepted)
    assert isinstance(again, Accepted)
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.dispatches == first.dispatches
    assert spool.size().events == 1


def test_other_content_under_a_known_id_is_refused(tmp_path: Path) -> None:
    spool, other = spool_in(tmp_path), event(1, "other")
    spool.store([(event(1), plan())])
    (answer,) = spool.store([(other, plan())])
    assert isinstance(answer, IdempotencyConflict)
    (theirs,) = spool.store([(replace(other, sent_by="token:1"), plan())])
    assert isinstance(theirs, Accepted)
    assert not theirs.duplicate
    assert [one.event.sent_by for one in waiting(spool)] == ["", "token:1"]
    # Nor does a quarantined one give its place to another.
    spool.quarantine(keys.event_digest(event(1).key), "test")
    assert isinstance(spool.store([(other, plan())])[0], IdempotencyConflict)
    assert isinstance(spool.store([(event(1), plan())])[0], Accepted)


def test_another_process_sees_what_is_in_it_and_what_has_left(tmp_path: Path) -> None:
    one, other = spool_in(tmp_path), spool_in(tmp_path)
    assert not holds(other)
    one.store([(event(1), plan()), (event(2), plan())])
    assert holds(other)
    assert not other.mark_imported(other.first(1)[1])
    assert holds(one)
    assert other.mark_imported(other.first(1)[1])
    assert not holds(one)
    assert one.size() == other.size()
    assert one.size().events == one.size().bytes == 0


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["keep", "again", "take", "reopen"]), max_size=25))
def test_in_order_and_each_once(tmp_path_factory: pytest.TempPathFactory, moves: list[str]) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool, left, sent = spool_in(folder), list[str](), 0
    for move in moves:
        if move == "keep":
            spool.store([(event(sent), plan())])
            left.append(f"e{sent}")
            sent += 1
        elif move == "again" and left:
            (answer,) = spool.store([(event(int(left[0][1:])), plan())])
            assert isinstance(answer, Accepted)
            assert answer.duplicate
        elif move == "take" and left:
            kept = waiting(spool, 2)
            assert [one.event.id for one in kept] == left[:2]
            spool.mark_imported(spool.first(2)[1])
            del left[:2]
        elif move == "reopen":
            spool.close()
            spool = spool_in(folder)
        assert spool.holds or not left
        assert spool.size().events == len(left)
    assert ids(spool) == left
    assert spool.mark_imported(0) is not bool(left)
    spool.close()


def test_a_full_spool_refuses_all_and_keeps_what_it_has(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, max_events=2)
    spool.store([(event(1), plan())])
    spool.check_room()
    with pytest.raises(SpoolFull, match=r"spool\.max_events"):
        spool.store([(event(2), plan()), (event(3), plan())])
    spool.store([(event(2), plan())])
    with pytest.raises(BrokerUnavailable, match="full"):
        spool.check_room()
    (again,) = spool.store([(event(1), plan())])
    assert isinstance(again, Accepted), "a known one takes no room"
    assert ids(spool) == ["e1", "e2"]


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, max_bytes=5000)
    with pytest.raises(SpoolFull, match=r"spool\.max_bytes"):
        spool.store([(event(1, "x" * 6000), plan())])
    spool.store([(event(2, "x" * 1000), plan())])


def test_an_agent_with_too_many_refuses_and_others_go_in(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, pending_max=1)
    answers = spool.store([(event(1), plan("a")), (event(2), plan("a")), (event(3), plan("b"))])
    assert [type(answer) for answer in answers] == [Accepted, Refused, Accepted]
    spool.mark_imported(spool.first(1)[1])
    assert isinstance(spool.store([(event(4), plan("a"))])[0], Accepted)


def test_refused_events_are_counted_once(tmp_path: Path) -> None:
    spool, other = spool_in(tmp_path), spool_in(tmp_path)
    assert spool.refused == 0
    spool.count_refused(3)
    other.count_refused(4)
    assert (spool.refused, other.refused) == (7, 7)
    spool.mark_reported(7)
    other.count_refused(1)
    assert (spool.refused, other.refused) == (1, 1)


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.store([(event(1), plan())])
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700
    for file in [*spool.folder.rglob("*"), spool.folder]:
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file.name


def test_nothing_of_an_event_stays_on_disk(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.store([(event(1, "a very secret word"), plan())])
    spool.mark_imported(spool.first(1)[1])
    left = b"".join(file.read_bytes() for file in spool.folder.rglob("*") if file.is_file())
    assert b"secret" not in left


def test_an_emptied_folder_is_begun_anew(tmp_path: Path) -> None:
    """Somebody moved its files away, under running processes."""
    spool, other = spool_in(tmp_path), spool_in(tmp_path)
    spool.store([(event(1), plan()), (event(2), plan())])
    assert ids(other) == ["e1", "e2"]
    for file in (spool.folder / "segments").iterdir():
        file.unlink()
    assert ids(other) == []
    spool.store([(event(3), plan())])
    assert ids(other) == ids(spool_in(tmp_path)) == ["e3"]


def test_a_spool_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()
    with pytest.raises(SpoolFull, match="cannot be used"):
        spool_in(tmp_path).store([(event(1), plan())])


def segment(spool: Spool) -> Path:
    (path,) = (spool.folder / "segments").iterdir()
    return path


def test_a_damaged_record_is_set_aside_and_others_go_on(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.store([(event(number), plan()) for number in (1, 2, 3)])
    path = segment(spool)
    spool.close()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"hello", b"jello")
    path.write_bytes(b"".join(lines))
    later = spool_in(tmp_path)
    assert ids(later) == ["e1", "e3"]
    assert later.mark_imported(later.first(9)[1])
    (name,) = later.damaged()
    assert b"jello" in (later.folder / "damaged" / name).read_bytes()


@pytest.mark.parametrize("bit", [0, 2, 62])
def test_damage_to_the_mark_of_what_is_imported_loses_no_event(tmp_path: Path, bit: int) -> None:
    spool = spool_in(tmp_path)
    spool.prepare()
    spool.store([(event(number), plan()) for number in (1, 2, 3)])
    spool.mark_imported(spool.first(1)[1])
    mark = spool.folder / "imported"
    text = bytearray(mark.read_bytes())
    text[bit // 8] ^= 1 << bit % 8
    mark.write_bytes(text)
    # What the ledger has may be imported once more: a duplicate.
    assert [ids(one)[-2:] for one in (spool, spool_in(tmp_path))] == [["e2", "e3"]] * 2
    assert list(spool.folder.glob("imported.damaged-*"))
    spool.store([(event(4), plan())])
    assert spool.mark_imported(spool.first(9)[1])


def test_behind_a_record_that_was_cut_short_another_segment_begins(tmp_path: Path) -> None:
    """A process died in the middle of its write, and the next one has its number."""
    spool = spool_in(tmp_path)
    spool.store([(event(1), plan()), (event(2), plan())])
    path = segment(spool)
    spool.close()
    path.write_bytes(path.read_bytes()[:-20])
    later = spool_in(tmp_path)
    later.store([(event(3), plan())])
    assert ids(later) == ids(spool_in(tmp_path)) == ["e1", "e3"]


def test_an_event_that_the_ledger_refuses_is_quarantined(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.store([(event(number), plan()) for number in (1, 2, 3)])
    spool.quarantine(keys.event_digest(event(2).key), "no such chain")
    assert reasons(spool) == ["no such chain"]
    assert spool.mark_imported(spool.first(9)[1])
    assert spool.size() == Size(0, 0)
    ((path, state),) = spool.quarantined()
    (entry,) = state.ordered()
    assert read_entry(entry) == (event(2), plan())
    # It was accepted: its id stands for no other event.
    assert isinstance(spool.store([(event(2, "other"), plan())])[0], IdempotencyConflict)
    path.unlink()
    assert reasons(spool) == []


def test_an_unreadable_event_does_not_stop_the_others(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.store([(event(1), plan()), (event(2), plan())])
    path = segment(spool)
    first, second = path.read_bytes().splitlines(keepends=True)
    meta, _, body = first[9:-1].partition(b"\t")
    path.write_bytes(encode(json.loads(meta), b"{}" + body[body.index(b"\t") :]) + second)
    later = spool_in(tmp_path)
    assert ids(later) == ["e2"]
    assert "cannot be read" in reasons(later)[0]
    assert later.mark_imported(later.first(9)[1])


def test_a_process_that_dies_while_it_stores_leaves_the_others_their_spool(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.store([(event(1), plan())])
    pid = os.fork()
    if not pid:
        with spool_in(tmp_path).alone():
            os._exit(0)
    os.waitpid(pid, 0)
    spool.store([(event(2), plan())])
    assert ids(spool) == ["e1", "e2"]


def test_a_process_that_hangs_while_it_stores_refuses_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "LOCK_TIMEOUT_S", 0.05)
    hangs, spool = spool_in(tmp_path), spool_in(tmp_path)
    with hangs.alone(), pytest.raises(SpoolFull, match="stays locked"):
        spool.store([(event(1), plan())])
    assert not spool.size().events


def test_it_belongs_to_one_broker(tmp_path: Path) -> None:
    """A mistyped address must not leave an event for the fleet of the folder."""
    ours, other = spool_in(tmp_path), spool_in(tmp_path, broker_url="redis://elsewhere/0")
    ours.adopt()
    with pytest.raises(SpoolFull, match="belongs to another broker"):
        other.store([(event(1), plan())])
    ours.store([(event(1), plan())])
    with pytest.raises(SpoolFull, match="belongs to another broker"):
        other.adopt()
    ours.mark_imported(ours.first(1)[1])
    other.adopt()
    assert (ours.is_ours, other.is_ours) == (False, True)
    one, rotated = (spool_in(tmp_path, broker_url=f"redis://:{p}@elsewhere/0") for p in "ab")
    one.adopt()
    assert rotated.is_ours, "another password is no other broker"


def test_a_spool_of_an_older_version_is_not_forgotten(tmp_path: Path) -> None:
    """Its events are accepted, and some have run: until it is empty no other is."""
    flag = tmp_path / "spool" / "flag"
    flag.parent.mkdir()
    flag.write_bytes(b"\1" + bytes(70))
    spool = spool_in(tmp_path)
    for verb in (spool.prepare, spool.check_room, lambda: spool.mark_imported(0)):
        with pytest.raises(SpoolFull, match=r"spool\.db"):
            verb()
    with pytest.raises(SpoolFull, match=r"spool\.db"):
        spool.store([(event(1), plan())])
    assert holds(spool), "otherwise an event goes past it, into the ledger"
    flag.write_bytes(bytes(71))
    spool.prepare()
    assert spool.mark_imported(0)
    assert not holds(spool)


def test_what_an_older_version_submitted_is_known(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    digests = [keys.event_digest(event(number).key) for number in range(4)]
    (folder / "offered.1").write_bytes(bytes.fromhex(digests[0]))
    (folder / "offered").write_bytes(bytes.fromhex(digests[1] + digests[2]) + b"cut short")
    spool = spool_in(tmp_path, direct=True)
    spool.prepare()
    assert [spool.may_have_run(one) for one in digests] == [True, True, True, False]
    assert not list(folder.glob("offered*"))
    (folder / "offered.incomplete").touch()
    spool.prepare()
    assert spool.may_have_run(digests[3])
