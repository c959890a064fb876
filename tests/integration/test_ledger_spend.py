"""The cost of agents in a day: each paid step once, whatever became of its attempt."""

from fleet.ledger import Ending, views
from fleet.store import Store
from tests.fixtures.ledger import OUTAGE, Books, settings_for


def spent(store: Store) -> int:
    """Tokens that agent `a` has taken in today."""
    return int(views.spend(store, ["a"])["a"]["tokens_in"])


def facts(tokens: int) -> dict[str, str | int | float]:
    return {"tokens_in": tokens, "tokens_out": 0, "usd": "0.000000"}


def test_what_a_later_attempt_takes_from_its_journal_is_not_paid_again(store: Store) -> None:
    retry = {"attempts": 3, "backoff_s": 0, "min_age_s": 0}
    books = Books(store, settings_for("a", retry=retry))
    books.accept()
    lease = books.held()
    books.ledger.commit(books.claimed(lease), Ending(failure=OUTAGE, facts=facts(30)))
    assert spent(store) == 30
    books.reclaim()
    books.ledger.commit(books.claimed(lease), Ending(answer="done", facts=facts(50)))
    assert spent(store) == 50


def test_a_commit_whose_reply_was_lost_is_paid_once(store: Store) -> None:
    books = Books(store, settings_for("a"))
    books.accept()
    claim = books.claimed(books.held())
    for _ in range(2):
        books.ledger.commit(claim, Ending(answer="done", facts=facts(20)))
    assert spent(store) == 20
    assert views.spend(store, ["b"])["b"] == {"usd": 0.0, "tokens_in": 0, "tokens_out": 0}
