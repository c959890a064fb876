"""Lists by agent and state: complete, newest first, however many others there are."""

import pytest

from fleet.ledger import views
from fleet.store import Store
from tests.fixtures.ledger import FOR_GOOD, Books, settings_for


def pages(store: Store, agent: str | None, states: list[str], limit: int) -> list[str]:
    """The ids of all pages."""
    found: list[str] = []
    page = views.find(store, agent=agent, states=states, limit=limit)
    while True:
        assert len(page.dispatches) <= limit
        found += [row["dispatch_id"] for row in page.dispatches]
        if page.cursor is None:
            return found
        page = views.find(store, agent=agent, states=states, limit=limit, cursor=page.cursor)


@pytest.mark.parametrize("examined", [2, 1000])
@pytest.mark.parametrize("limit", [1, 3, 50])
def test_each_list_has_all_that_belong_to_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, examined: int, limit: int
) -> None:
    """One step may examine a part of the ledger, or all of it."""
    monkeypatch.setattr(views, "_SEEN_MAX", examined)
    books = Books(store, settings_for("a", "b"))
    ids: dict[tuple[str, str], list[str]] = {}
    for agent in ("a", "b"):
        lease = books.held(agent)
        for how in ("completed", "dead", "completed", "dead"):
            (dispatch_id,) = books.accept(agent)
            claim = books.claimed(lease)
            state = books.complete(claim) if how == "completed" else books.fail(claim, FOR_GOOD)
            ids.setdefault((agent, state), []).insert(0, dispatch_id)
        (active,) = books.accept(agent)
        books.claimed(lease)
        ids[agent, "active"] = [active]
        ids[agent, "queued"] = [books.accept(agent)[0] for _ in range(3)][::-1]
    everything = [one for agent in ("b", "a") for one in _newest(store, ids, agent)]
    assert pages(store, None, [], limit) == everything
    for states in (["queued"], ["dead"], ["active"], ["completed", "dead"], ["queued", "retrying"]):
        for asked in ("a", None):
            expected = {
                one
                for (name, state), found in ids.items()
                if asked in (None, name) and state in states
                for one in found
            }
            listed = pages(store, asked, states, limit)
            assert listed == [one for one in everything if one in expected]


def _newest(store: Store, ids: dict[tuple[str, str], list[str]], agent: str) -> list[str]:
    found = [one for (name, _), some in ids.items() if name == agent for one in some]
    return sorted(found, key=lambda one: -(store.client.zscore("fleet:index", one) or 0))
