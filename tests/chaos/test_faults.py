"""The plan of a run is made before it begins; the loss of a power failure is read from a trace."""

from collections import Counter
from itertools import pairwise

from fleet.bench._faults import KILLS, OUTAGES, VICTIMS, outage_schedule, schedule
from fleet.bench._power import unsynced_bytes

AGENTS = ("a1", "a2")
AOF = "/d/appendonly.aof.1.incr.aof"


def test_the_same_seed_is_the_same_run() -> None:
    one, same, other = (schedule(seed, 50, 60.0, AGENTS, hosts=2, ttl_s=2.0) for seed in (7, 7, 8))
    assert one == same != other


def test_as_many_kills_as_asked_for_in_order_of_time() -> None:
    plan = schedule(1, 100, 60.0, AGENTS, hosts=1, ttl_s=2.0, power_losses=4)
    assert sum(fault.kills for fault in plan) == 100
    times = [fault.at_s for fault in plan]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= 60
    kinds = Counter(fault.kind for fault in plan)
    assert kinds["power"] == 4
    assert KILLS.keys() <= kinds.keys()


def test_the_same_seed_is_the_same_run_of_outages() -> None:
    one, same, other = (outage_schedule(seed, 50, AGENTS) for seed in (7, 7, 8))
    assert one == same != other


def test_as_many_outages_as_asked_for_each_after_the_end_of_the_last() -> None:
    plan = outage_schedule(1, 60, AGENTS)
    kinds = Counter(fault.kind for fault in plan)
    assert sum(kinds[kind] for kind in OUTAGES) == 60
    assert OUTAGES.keys() | VICTIMS.keys() == kinds.keys()
    outages = [fault for fault in plan if fault.kind in OUTAGES]
    for one, after in pairwise(outages):
        assert after.at_s > one.at_s + one.seconds


def trace(*lines: str) -> str:
    return "\n".join(lines)


def write(size: int, thread: int = 10, path: str = AOF) -> str:
    return f'{thread} write(8<{path}>, ""..., {size}) = {size}'


def test_what_was_written_since_the_last_fsync_is_gone() -> None:
    assert unsynced_bytes(trace(write(5), f"10 fdatasync(8<{AOF}>) = 0", write(7), write(2))) == {
        AOF: 9
    }


def test_an_fsync_that_did_not_end_saved_nothing() -> None:
    assert unsynced_bytes(trace(write(5), f"11 fdatasync(8<{AOF}> <unfinished ...>")) == {AOF: 5}


def test_an_fsync_saves_what_was_written_before_it_began() -> None:
    told = trace(
        write(5),
        f"11 fdatasync(8<{AOF}> <unfinished ...>",
        write(7),
        "11 <... fdatasync resumed>) = 0",
    )
    assert unsynced_bytes(told) == {AOF: 7}


def test_a_failed_fsync_and_other_files_count_for_nothing() -> None:
    told = trace(
        write(5),
        write(100, path="/d/server.log"),
        f"10 fdatasync(8<{AOF}>) = -1 EIO (Input/output error)",
    )
    assert unsynced_bytes(told) == {AOF: 5}


def test_a_write_that_did_not_end_is_not_cut() -> None:
    assert unsynced_bytes(f'10 write(8<{AOF}>, ""..., 12 <unfinished ...>') == {}
