"""One dispatch has one outcome, also where the end of another ends it first."""

from fleet.config.settings import parse
from fleet.store import Store
from tests.fixtures.chains import GROUPS, Run
from tests.fixtures.ledger import Books

TERMINAL = ("completed", "dead", "cancelled", "dropped", "expired")
AGENT = {"runner": "python", "python": "nobody:nothing", "max_pending": 2}


def test_two_members_of_a_stage_are_dropped_at_once(store: Store) -> None:
    """The first drop decides the stage and cancels the other, which no drop may end again."""
    stage = {"agent": "@reviewers", "quorum": 2}
    tables = {
        "agents": dict.fromkeys(
            ("archie", *GROUPS["reviewers"]), AGENT | {"overflow": "drop_oldest"}
        ),
        "routes": {"groups": GROUPS},
        "chains": {"release": {"stages": [stage]}},
    }
    books = Books(store, parse(tables))
    run = Run(books)
    run.answer("kim", "REJECT: no")
    for agent in ("gem", "mini"):
        books.accept(agent)
    books.accept(["gem", "mini"])
    for agent, end in (("gem", "dropped"), ("mini", "cancelled")):
        assert books.ends(run.dispatch(1, agent)) == [f"dispatch_{end}"]
        assert run.state(1, agent) == end
    assert counted(books) == {"kim|completed": 1, "gem|dropped": 1, "mini|cancelled": 1}


def counted(books: Books) -> dict[str, int]:
    counts: dict[str, str] = books.store.client.hgetall("fleet:counts")  # type: ignore[assignment]
    ended = {name: int(count) for name, count in counts.items() if name.endswith(TERMINAL)}
    return {name: count for name, count in ended.items() if count}
