"""The spool on disk: what goes in comes out, once, in order, or is refused."""

import os
import sqlite3
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.config.settings import parse
from fleet.errors import BrokerUnavailable, IdempotencyConflict, Refused
from fleet.intake.spool.table import Spool, SpoolFull
from fleet.ledger import Accepted
from fleet.store import keys
from routing import Event, Plan

NOW = "2026-01-01T00:00:00Z"


def event(number: int, text: str = "hello") -> Event:
    return Event.parse({"to": "a", "text": text}, new_id=f"e{number}", now=NOW)


def plan(*agents: str) -> Plan:
    return Plan(agents=agents or ("a",), reason="to: a")


def spool_in(folder: Path, pending_max: int = 1000, **limits: int) -> Spool:
    agent = {"runner": "python", "python": "nobody:nothing", "max_pending": pending_max}
    tables = {"fleet": {"data_dir": str(folder)}, "agents": {"a": agent, "b": agent}}
    return Spool(parse({**tables, "spool": {"direct": False, **limits}}))


def holds(spool: Spool) -> bool:
    return spool.holds


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
    (kept,) = spool.first(10)
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
    assert [one.event.sent_by for one in spool.first(10)] == ["", "token:1"]
    # Nor does one that is aside give its place to another.
    spool.quarantine(1, "test")
    assert isinstance(spool.store([(other, plan())])[0], IdempotencyConflict)
    assert isinstance(spool.store([(event(1), plan())])[0], Accepted)


def test_another_process_sees_what_is_in_it_and_what_has_left(tmp_path: Path) -> None:
    one, other = spool_in(tmp_path), spool_in(tmp_path)
    assert not holds(other)
    one.store([(event(1), plan()), (event(2), plan())])
    assert holds(other)
    first, second = other.first(10)
    assert not other.mark_imported(first.seq)
    assert holds(one)
    assert other.mark_imported(second.seq)
    assert not holds(one)
    assert one.size() == other.size()
    assert one.size().events == one.size().bytes == 0


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["keep", "again", "take", "clear", "reopen"]), max_size=25))
def test_in_order_and_each_once(tmp_path_factory: pytest.TempPathFactory, moves: list[str]) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool, waiting, sent = spool_in(folder), list[str](), 0
    for move in moves:
        if move == "keep":
            spool.store([(event(sent), plan())])
            waiting.append(f"e{sent}")
            sent += 1
        elif move == "again" and waiting:
            (answer,) = spool.store([(event(int(waiting[0][1:])), plan())])
            assert isinstance(answer, Accepted)
            assert answer.duplicate
        elif move == "take" and waiting:
            kept = spool.first(2)
            assert [one.event.id for one in kept] == waiting[:2]
            spool.mark_imported(kept[-1].seq)
            del waiting[:2]
        elif move == "clear":
            spool.clear()
        elif move == "reopen":
            spool.close()
            spool = spool_in(folder)
        assert spool.holds or not waiting
        assert spool.size().events == len(waiting)
    assert [one.event.id for one in spool.first(100)] == waiting
    assert spool.mark_imported(0) is not bool(waiting)
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
    assert [one.event.id for one in spool.first(9)] == ["e1", "e2"]


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, max_bytes=5000)
    with pytest.raises(SpoolFull, match=r"spool\.max_bytes"):
        spool.store([(event(1, "x" * 6000), plan())])
    spool.store([(event(2, "x" * 1000), plan())])


def test_an_agent_with_too_many_refuses_and_others_go_in(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, pending_max=1)
    answers = spool.store([(event(1), plan("a")), (event(2), plan("a")), (event(3), plan("b"))])
    assert [type(answer) for answer in answers] == [Accepted, Refused, Accepted]
    spool.mark_imported(spool.first(1)[0].seq)
    spool.clear()
    assert isinstance(spool.store([(event(4), plan("a"))])[0], Accepted)


def test_refused_events_are_counted_once(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    assert spool.pop_refused() == 0
    spool.store([(event(1), plan())])
    spool.count_refused(3)
    spool_in(tmp_path).count_refused(9)  # has not opened it: nobody to tell
    assert (spool.pop_refused(), spool.pop_refused()) == (3, 0)


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.store([(event(1), plan())])
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700
    for file in spool.folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file.name


def test_nothing_of_an_event_stays_on_disk(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.store([(event(1, "a very secret word"), plan())])
    spool.mark_imported(spool.first(1)[0].seq)
    spool.clear()
    left = b"".join(file.read_bytes() for file in spool.folder.iterdir())
    assert b"secret" not in left


def test_a_new_file_does_not_begin_where_an_old_one_ended(tmp_path: Path) -> None:
    """Somebody moved a damaged one away."""
    spool = spool_in(tmp_path)
    spool.store([(event(1), plan()), (event(2), plan())])
    spool.mark_imported(spool.first(2)[-1].seq)
    spool.close()
    for file in spool.folder.glob("spool.db*"):
        file.unlink()
    later = spool_in(tmp_path)
    later.store([(event(3), plan())])
    assert [one.event.id for one in later.first(9)] == ["e3"]


def damage(folder: Path) -> None:
    (folder / "spool").mkdir()
    (folder / "spool" / "spool.db").write_bytes(b"x" * 4096)


def block(folder: Path) -> None:
    (folder / "spool").touch()


@pytest.mark.parametrize(("harm", "says"), [(damage, "damaged"), (block, "cannot be used")])
def test_a_spool_that_cannot_be_used_says_so(
    tmp_path: Path, harm: Callable[[Path], None], says: str
) -> None:
    harm(tmp_path)
    with pytest.raises(SpoolFull, match=says):
        spool_in(tmp_path).store([(event(1), plan())])


def test_a_damaged_file_is_set_aside_and_others_go_on(tmp_path: Path) -> None:
    one, other = spool_in(tmp_path), spool_in(tmp_path)
    one.store([(event(1), plan())])
    other.store([(event(2), plan())])
    one.close()
    for file in one.folder.glob("spool.db*"):
        size = file.stat().st_size
        with file.open("r+b") as open_file:
            open_file.write(b"\xff" * size)
    with pytest.raises(SpoolFull, match="set aside as spool"):
        spool_in(tmp_path).size()
    assert isinstance(other.store([(event(3), plan())])[0], Accepted)
    assert [kept.event.id for kept in one.first(9)] == ["e3"]
    (name,) = [name for name in one.file.damaged() if not name.endswith(("-wal", "-shm"))]
    assert b"\xff" * 100 in (one.folder / name).read_bytes()


def test_an_event_that_the_ledger_refuses_is_quarantined_and_tried_again(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.store([(event(number), plan()) for number in (1, 2, 3)])
    spool.quarantine(spool.first(9)[1].seq, "no such chain")
    assert [kept.event.id for kept in spool.first(9)] == ["e1", "e3"]
    assert spool.quarantined() == ["no such chain"]
    assert spool.release_quarantined() == 1
    assert [kept.event.id for kept in spool.first(9)] == ["e1", "e3", "e2"]
    assert spool.quarantined() == []
    spool.quarantine(spool.first(9)[2].seq, "no such chain")
    spool.store([(event(2), plan())])
    assert spool.release_quarantined() == 1
    assert [kept.event.id for kept in spool.first(9)] == ["e1", "e3", "e2"], (
        "a resent event is queued already"
    )
    spool.mark_imported(spool.first(9)[-1].seq)
    spool.clear()
    assert spool.size().events == 0
    with spool.file.reading() as db:
        assert db.execute("SELECT count(*) FROM waiting").fetchone()[0] == 0
        assert db.execute("SELECT events, bytes FROM total").fetchone() == (0, 0)


def test_an_unreadable_event_does_not_stop_the_others(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.store([(event(1), plan()), (event(2), plan())])
    with spool.file.changing() as db:
        db.execute("UPDATE kept SET event = '{}' WHERE seq = 1")
    assert [kept.event.id for kept in spool.first(9)] == ["e2"]
    assert "cannot be read" in spool.quarantined()[0]


def test_a_power_loss_before_the_commit_stores_nothing(tmp_path: Path) -> None:
    """Another process dies in the middle of its transaction."""
    spool = spool_in(tmp_path)
    spool.store([(event(1), plan())])
    pid = os.fork()
    if not pid:
        db = sqlite3.connect(spool.folder / "spool.db", isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM kept")
        os._exit(0)
    os.waitpid(pid, 0)
    assert [one.event.id for one in spool_in(tmp_path).first(9)] == ["e1"]
