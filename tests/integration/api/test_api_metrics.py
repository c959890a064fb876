"""`GET /metrics`: whom it tells what, and that it answers without the store."""

from fleet.auth import tokens
from fleet.store import Store
from tests.fixtures.listening import listen
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import Api, MakeApi, away


def scrape(api: Api, **headers: str) -> str:
    answer = api.http.get("/metrics", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.text


def test_what_waits_and_who_is_connected(api: Api) -> None:
    sent = api.send(to="gem").json()["dispatches"][0]["dispatch_id"]
    with api.follow() as _, listen(api.url, sent):
        wait_until(lambda: "fleet_stream_listeners 1.0" in scrape(api))
        text = scrape(api)
    assert "fleet_up 1.0" in text
    assert 'fleet_dispatches{agent="gem",state="queued"} 1.0' in text
    assert "fleet_bus_clients 1.0" in text
    wait_until(lambda: "fleet_stream_listeners 0.0" in scrape(api))


def test_without_the_broker_it_says_so(api: Api, valkey: Valkey) -> None:
    with away(valkey):
        assert "fleet_up 0.0" in scrape(api)
    wait_until(lambda: "fleet_up 1.0" in scrape(api))


def test_a_token_shows_its_own_agents(make_api: MakeApi, valkey: Valkey, store: Store) -> None:
    _, text = tokens.create(store, "reader", ["read:gem"])
    api = make_api(valkey.url)
    assert api.http.get("/metrics").status_code == 401
    shown = scrape(api, Authorization=f"Bearer {text}")
    assert 'agent="gem"' in shown
    assert 'agent="archie"' not in shown
