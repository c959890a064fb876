"""Searches, sessions, targets, sums over time, options and tokens, as the console asks for them."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.auth import tokens
from fleet.ledger import Claim, Ending, operations, sessions, sums
from fleet.store import Store, keys, open_store
from fleet.worker.lease import Lease
from tests.fixtures.ledger import FOR_GOOD, Books, settings_for
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import Api, Json, MakeApi


@pytest.fixture(scope="module")
def books(valkey: Valkey) -> Iterator[Books]:
    store = open_store(valkey.url)
    yield Books(store, settings_for("archie", "gem"))
    store.close()


@pytest.fixture
def own_books(tmp_path: Path) -> Iterator[Books]:
    """A ledger in which nothing has happened."""
    server = Valkey(tmp_path).start()
    store = open_store(server.url)
    yield Books(store, settings_for("archie"))
    store.close()
    server.kill()


@pytest.fixture(scope="module")
def said(api: Api, books: Books) -> dict[str, str]:
    """Dispatches by what they are about; `plan` is completed, `fault` is dead."""
    made = {}
    for name, event in {
        "plan": {"to": "archie", "text": "\n  Plan the Müller trip\nin May", "session": "trip"},
        "hotel": {"to": "gem", "text": "Book a hotel", "session": "trip", "source": "crm"},
        "long": {"to": "gem", "text": "word " * 4000 + "needle", "source": "crm"},
        "fault": {"to": "archie", "text": "100% of it"},
    }.items():
        made[name] = api.send(**event).json()["dispatches"][0]["dispatch_id"]
    lease = books.held("archie")
    books.complete(books.claimed(lease), "Six days.")
    books.fail(books.claimed(lease), FOR_GOOD)
    return made


def find(api: Api, **query: Any) -> list[Json]:
    answer = api.http.get("/dispatches", params=query)
    assert answer.is_success, answer.text
    found: list[Json] = answer.json()["dispatches"]
    return found


def names(rows: list[Json], said: dict[str, str]) -> list[str]:
    known = {dispatch_id: name for name, dispatch_id in said.items()}
    return [known[row["dispatch_id"]] for row in rows]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"words": "müller", "content": "1"}, ["plan"]),
        ({"words": "müller"}, []),  # texts are content
        ({"words": "TRIP"}, ["hotel", "plan"]),
        ({"words": "100%", "content": "1"}, ["fault"]),
        ({"session": "trip", "agent": "gem"}, ["hotel"]),
        ({"source": "crm"}, ["long", "hotel"]),
        ({"source": "CRM"}, []),
        ({"words": "needle", "content": "1"}, []),  # beyond what is searched of one event
        ({"words": "word word", "content": "1"}, ["long"]),
        ({"state": "dead", "words": "archie"}, ["fault"]),
    ],
)
def test_a_search_finds_what_is_asked_for(
    api: Api, said: dict[str, str], query: Json, found: list[str]
) -> None:
    assert names(find(api, **query), said) == found


def test_an_id_is_found_by_a_part_of_it(api: Api, said: dict[str, str]) -> None:
    assert names(find(api, words=said["hotel"][:8]), said) == ["hotel"]


def test_a_row_has_the_first_line_only_with_content(api: Api, said: dict[str, str]) -> None:
    shown = {row["dispatch_id"]: row["text"] for row in find(api, content="1")}
    assert shown[said["plan"]] == "Plan the Müller trip"
    assert len(shown[said["long"]]) == 160
    assert not [row for row in find(api) if "text" in row]


def test_pages_of_a_search_give_each_dispatch_once(api: Api, said: dict[str, str]) -> None:
    seen: list[str] = []
    cursor = None
    while True:
        query = {"words": "r", "limit": "1", **({"cursor": cursor} if cursor else {})}
        page = api.http.get("/dispatches", params=query).json()
        seen += names(page["dispatches"], said)
        cursor = page["cursor"]
        if not cursor:
            break
    assert len(seen) == len(set(seen))
    assert {"plan", "hotel", "fault"} <= set(seen)


def test_words_that_are_too_many_are_refused(api: Api) -> None:
    assert api.http.get("/dispatches", params={"words": "x" * 201}).status_code == 400


def test_sessions_are_listed_with_what_became_of_them(api: Api, said: dict[str, str]) -> None:
    (one,) = api.http.get("/sessions", params={"content": "1"}).json()["sessions"]
    assert one["session"] == "trip"
    assert one["agents"] == ["gem", "archie"]
    assert one["states"] == {"queued": 1, "completed": 1}
    assert one["text"] == "Book a hotel"
    assert one["newest_id"] == said["hotel"]
    assert "text" not in api.http.get("/sessions").json()["sessions"][0]


def test_a_cursor_that_nobody_gave_is_refused(api: Api) -> None:
    for cursor in ("", "x", "1", "1.x", "-1.0", "1." + "9" * 5):
        answer = api.http.get("/sessions", params={"cursor": cursor})
        assert answer.status_code == 400, cursor
        assert "cursor" in answer.json()["detail"]
    assert api.http.get("/sessions", params={"cursor": "1.0"}).json() == {
        "sessions": [],
        "cursor": None,
    }


@pytest.mark.parametrize(("limit", "seen"), [(1, 100), (2, 3), (50, 4), (3, 1)])
def test_pages_of_sessions_reach_the_oldest_dispatch(
    own_books: Books, monkeypatch: pytest.MonkeyPatch, limit: int, seen: int
) -> None:
    monkeypatch.setattr(sessions, "SEEN_MAX", seen)
    order = ["old", "a", "b", "a", "c", "d", "b", "new"]
    for place, name in enumerate(order):
        own_books.accept("archie", f"{name} {place}", session=name)
    found: dict[str, int] = {}
    cursor, first = None, True
    while first or cursor:
        page = sessions.recent(own_books.store, content=True, limit=limit, cursor=cursor)
        assert len(page.sessions) <= limit
        if first:
            # What comes between two pages is in neither.
            own_books.accept("archie", "too late", session="late")
        for one in page.sessions:
            found[one["session"]] = found.get(one["session"], 0) + one["dispatches"]
        cursor, first = page.cursor, False
    assert found == Counter(order)
    assert next(iter(found)) == "new"
    assert list(found)[-1] == "old"


def test_targets_and_chains_are_told(api: Api) -> None:
    told = api.http.get("/targets").json()
    assert {one["target"] for one in told["targets"]} == {
        *("archie", "gem", "small", "@reviewers", "all", "chain:ask")
    }
    assert told["lanes"]["human"] == 9
    (chain,) = told["chains"]
    assert [stage["person"] for stage in chain["stages"]] == ["ops", None, None]


def test_sums_are_kept_in_the_store_and_end_by_themselves(
    api: Api, store: Store, said: dict[str, str]
) -> None:
    for span in sums.SPANS:
        history = api.http.get("/history", params={"span": span}).json()
        for name, number in {"completed": 1, "ended_badly": 1, "failed": 1, "turns": 2}.items():
            assert sum(bucket[name] for bucket in history["buckets"]) == number, (span, name)
        assert all(bucket["place"] < history["places"] for bucket in history["buckets"])
    kept = list(store.client.scan_iter(match=keys.sums(60, 0).removesuffix("0") + "*"))
    assert kept
    assert all(0 < store.client.ttl(key) <= 7500 for key in kept)


def test_an_agent_has_sums_of_its_own(api: Api, said: dict[str, str]) -> None:
    for span in sums.SPANS:
        history = api.http.get("/history", params={"span": span, "agent": "archie"}).json()
        whole = api.http.get("/history", params={"span": span}).json()
        assert history["places"] == whole["places"]
        for name in ("completed", "ended_badly", "cancelled", "failed", "turns"):
            both = [sum(bucket[name] for bucket in one["buckets"]) for one in (history, whole)]
            assert both[0] == both[1], (span, name)
        assert [one["place"] for one in history["buckets"]] == [
            one["place"] for one in whole["buckets"]
        ]
        assert history["buckets"][0]["turn_p50_s"] <= history["buckets"][0]["turn_p95_s"]
        assert history["whole"]
    query = {"agent": "gem", "span": "hour"}
    assert api.http.get("/history", params=query).json()["buckets"] == []
    assert api.http.get("/history", params={"agent": "nobody"}).status_code == 400
    assert api.http.get("/history", params={"agent": "gem,archie"}).status_code == 400


def test_the_sums_of_an_agent_have_tokens_cost_and_the_attempts_that_failed(
    books: Books, said: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [books.accept("gem", f"number {number}")[0] for number in range(3)]
    lease = books.held("gem")
    claim = books.claimed(lease)
    while claim.dispatch_id != ids[0]:
        claim = _completed(books, lease, claim)
    books.fail(claim)
    operations.replay(books.ledger, books.settings, ids[0])
    claim = books.claimed(lease)
    for _ in ids[1:]:
        claim = _completed(books, lease, claim)
    books.complete(claim)
    found = sums.read_agent(books.store, "hour", "gem")
    assert found["whole"]
    total = {name: sum(one[name] for one in found["buckets"]) for name in ("completed", "failed")}
    assert total == {"completed": 5, "failed": 1}
    assert sum(one["tokens_in"] for one in found["buckets"]) == 4 * 10
    assert sum(one["usd"] for one in found["buckets"]) == 4 * 0.5
    monkeypatch.setattr(sums, "AGENT_SEEN_MAX", 2)
    found = sums.read_agent(books.store, "hour", "gem")
    assert sum(one["completed"] for one in found["buckets"]) == 2
    assert not found["whole"]


def _completed(books: Books, lease: Lease, claim: Claim) -> Claim:
    """Complete a turn that called a model; the next claim."""
    facts: dict[str, str | int | float] = {"tokens_in": 10, "usd": 0.5}
    books.ledger.commit(claim, Ending(answer="yes", facts=facts))
    return books.claimed(lease)


def test_tokens_are_made_listed_and_revoked(make_api: MakeApi, tmp_path: Any) -> None:
    server = Valkey(tmp_path).start()
    try:
        api = make_api(server.url)
        wanted = {"name": "root", "scopes": ["admin"]}
        # Nobody unknown may close the fleet to the others.
        assert api.http.post("/tokens", json=wanted).status_code == 403
        _, secret = tokens.create(open_store(server.url), "root", ("admin",))
        wait_until(lambda: api.http.get("/agents").status_code == 401)
        api.http.headers["Authorization"] = f"Bearer {secret}"
        other = api.http.post("/tokens", json={"name": "crm", "scopes": ["send:gem"]}).json()
        listed = api.http.get("/tokens").json()["tokens"]
        assert [one["name"] for one in listed] == ["crm", "root"]
        assert other["token"] not in str(listed)
        assert "digest" not in listed[0]
        limited = {"Authorization": f"Bearer {other['token']}"}
        assert api.http.get("/tokens", headers=limited).status_code == 403
        assert api.http.get("/agents/gem/config", headers=limited).status_code == 403
        assert api.http.get("/history", headers=limited).status_code == 403
        reader = api.http.post("/tokens", json={"name": "bi", "scopes": ["read:gem"]}).json()
        reads = {"Authorization": f"Bearer {reader['token']}"}
        for agent, status in (("gem", 200), ("archie", 403), ("nobody", 403)):
            answer = api.http.get("/history", params={"agent": agent}, headers=reads)
            assert answer.status_code == status
        targets = api.http.get("/targets", headers=limited).json()
        assert [one["target"] for one in targets["targets"]] == ["gem"]
        assert targets["chains"] == []
        assert api.http.delete("/tokens/unknown").status_code == 404
        revoked = api.http.delete(f"/tokens/{other['id']}").json()["revoked"]
        assert revoked == [{"id": other["id"], "name": "crm"}]
        assert api.http.get("/targets", headers=limited).status_code == 401
        for body in (
            {"name": "", "scopes": ["admin"]},
            {"name": "x", "scopes": []},
            {"name": "x", "scopes": ["send:nobody"]},
            {"name": "x", "scopes": "admin"},
            {"name": "x", "scopes": ["admin"], "rate_per_s": 0},
            {"name": "x", "scopes": ["admin"], "more": 1},
        ):
            assert api.http.post("/tokens", json=body).status_code == 400, body
        assert len(api.http.get("/tokens").json()["tokens"]) == 3
    finally:
        server.kill()


def test_options_of_an_agent_are_told(api: Api) -> None:
    options = api.http.get("/agents/small/config").json()["options"]
    assert options["max_pending"] == 2
    assert api.http.get("/agents/nobody/config").status_code == 404
    assert api.http.get("/agents/small").json()["limits"]["max_pending"] == 2
