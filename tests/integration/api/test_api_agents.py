"""The agents over HTTP: what is told of them, and pausing them."""

from fleet.config.settings import parse
from fleet.ledger import Ending
from fleet.store import Store
from tests.fixtures.ledger import Books
from tests.integration.api.conftest import Api

PROBLEM = "application/problem+json"


def books(store: Store, *agents: str) -> Books:
    """A worker played by the test."""
    table = {"runner": "python", "python": "a:b"}
    return Books(store, parse({"agents": dict.fromkeys(agents, table)}))


def test_an_agent_tells_its_queue_holder_and_spend(api: Api, store: Store) -> None:
    ledger = books(store, "gem")
    api.send(to="gem")
    api.send(to="gem")
    assert api.http.get("/agents/gem").json()["status"] == "offline"
    claim = ledger.claimed(lease := ledger.held("gem"))
    row = api.http.get("/agents/gem").json()
    assert (row["status"], row["active"], row["holder"]) == (
        "busy",
        claim.dispatch_id,
        lease.holder,
    )
    assert row["states"] == {"active": 1, "queued": 1}
    ending = Ending(answer="done", facts={"usd": "0.25", "tokens_in": 10, "tokens_out": 4})
    ledger.ledger.commit(claim, ending)
    row = api.http.get("/agents/gem").json()
    assert row["spend"] == {"usd": 0.25, "tokens_in": 10, "tokens_out": 4}
    assert (row["status"], row["states"]) == ("idle", {"completed": 1, "queued": 1})


def test_some_are_asked_for_by_name(api: Api) -> None:
    some = api.http.get("/agents", params={"agent": ["gem", "small"]}).json()["agents"]
    assert [row["agent"] for row in some] == ["gem", "small"]
    everyone = api.http.get("/agents").json()["agents"]
    assert [row["agent"] for row in everyone] == ["archie", "gem", "small"]


def test_pause_and_resume_say_what_changed(api: Api) -> None:
    for verb, changed in (("pause", True), ("pause", False), ("resume", True), ("resume", False)):
        (row,) = api.http.post(f"/agents/small/{verb}").json()["agents"]
        assert row == {"agent": "small", "paused": verb == "pause", "changed": changed}
        assert api.http.get("/agents/small").json()["paused"] is (verb == "pause")
    everyone = api.http.post("/agents/all/pause").json()["agents"]
    assert [row["agent"] for row in everyone] == ["archie", "gem", "small"]
    assert api.http.post("/agents/all/resume").status_code == 200


def test_a_drain_is_done_when_nothing_runs(api: Api, store: Store) -> None:
    ledger = books(store, "archie")
    api.send(to="archie")
    claim = ledger.claimed(ledger.held("archie"))
    answer = api.http.post("/agents/archie/drain")
    assert (answer.status_code, answer.json()["agents"][0]["active"]) == (202, claim.dispatch_id)
    ledger.complete(claim)
    answer = api.http.post("/agents/archie/drain")
    assert (answer.status_code, answer.json()["agents"][0]["active"]) == (200, None)
    assert api.http.post("/agents/archie/resume").json()["agents"][0]["changed"]


def test_who_is_not_there_is_a_problem(api: Api) -> None:
    for answer, status in (
        (api.http.get("/agents/nobody"), 404),
        (api.http.post("/agents/nobody/pause"), 404),
        (api.http.get("/agents", params={"agent": "nobody"}), 400),
        (api.http.get("/agents/gem/pause"), 405),
        (api.http.get("/agents/"), 404),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
        assert answer.json()["status"] == status


def test_a_removed_agent_is_seen_as_long_as_it_has_work(api: Api, store: Store) -> None:
    ledger = books(store, "old")
    assert api.http.get("/dispatches", params={"agent": "old"}).status_code == 400
    (dispatch_id,) = ledger.accept("old")
    (found,) = api.http.get("/dispatches", params={"agent": "old"}).json()["dispatches"]
    assert found["dispatch_id"] == dispatch_id
    row = api.http.get("/agents").json()["agents"][-1]
    assert (row["agent"], row["status"], row["states"]) == ("old", "removed", {"queued": 1})
    health = api.http.get("/health").json()
    assert (health["status"], health["g2"]["removed"]) == ("degraded", {"old": {"queued": 1}})
    assert api.http.post(f"/dispatches/{dispatch_id}/cancel").json()["state"] == "cancelled"
    assert api.http.get("/health").json()["g2"]["removed"] == {}
