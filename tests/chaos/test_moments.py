"""A process dies at each moment that matters, and the next one goes on exactly there."""

from collections.abc import Iterator

import pytest

from tests.chaos.arena import Arena, arena_of
from tests.chaos.turns import MOMENTS, WHO

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena_of(tmp_path_factory.mktemp("arena"), agents=len(MOMENTS)) as arena:
        yield arena


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_next_attempt_goes_on_where_it_was(arena: Arena, moment: str, who: str) -> None:
    # An agent for each moment: a worker that dies too often in a row is started with pauses.
    agent = arena.target.agents[MOMENTS.index(moment)]
    before = arena.result()
    dispatch_id = arena.send(f"3 0.02 {moment} {who}", agent)
    behind = arena.send("1 0.02", agent)
    record = arena.outcome(dispatch_id)
    assert arena.outcome(behind)["state"] == record["state"] == "completed"

    lost = 0 if moment == "committed" else 1
    assert (record["attempt"], record["losses"]) == (str(1 + lost), str(lost))
    after = arena.result()
    assert after.violations == []
    # An answer that no journal got is asked for again; what was kept is never.
    assert after.paid_again - before.paid_again == (moment == "answered")
    resumed = {"answered": 1, "kept": 2, "before_commit": 3}.get(moment, 0)
    assert after.resumed_steps - before.resumed_steps == resumed
