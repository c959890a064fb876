"""The alerts over HTTP: who sees which, who silences and acknowledges, and what is refused."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from fleet.api.app import create_api
from fleet.auth import tokens
from fleet.config.settings import parse
from fleet.runtime import Runtime
from fleet.store import Store, keys
from fleet.store.alert_calls import AlertsCall
from tests.fixtures.valkey import Valkey

CONDITIONS = [
    {"key": "dead_letters:gem", "name": "dead_letters", "agent": "gem", "reason": "1 dead letter"},
    {"key": "memory:", "name": "memory", "agent": "", "reason": "nearly full"},
]


@dataclass
class Api:
    """A closed API without its threads: the alerts are the test's."""

    http: TestClient


@pytest.fixture
def api(tmp_path: Path, valkey: Valkey, store: Store) -> Api:
    tokens.create(store, "root", ["admin"])
    agent = {"runner": "python", "python": "a:b"}
    fleet = {"broker_url": valkey.url, "data_dir": str(tmp_path)}
    settings = parse({"fleet": fleet, "agents": {"archie": agent, "gem": agent}})
    return Api(TestClient(create_api(Runtime(settings)), base_url="http://127.0.0.1"))


@pytest.fixture
def made(store: Store) -> Any:
    """A token with these scopes, as headers."""

    def make(*scopes: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {tokens.create(store, 'ann', scopes)[1]}"}

    return make


@pytest.fixture(autouse=True)
def _two_are_open(store: Store) -> None:
    store.client.delete(keys.ALERTS, keys.ALERTS_SILENCES, keys.ALERTS_PAST)
    compare(store, CONDITIONS)


def compare(store: Store, conditions: list[dict[str, Any]]) -> None:
    more = {"for_ms": 0, "count": 0, "quiet": []}
    store.run(
        AlertsCall(
            conditions=json.dumps([{**one, **more} for one in conditions]),
            news="[]",
            cursor="0-0",
            again_ms=0,
            per_minute=20,
            outbox_max=20,
            sends=0,
            silence_ms=15_000,
            past_max=20,
        )
    )


def seen(api: Api, headers: dict[str, str], **query: str) -> dict[str, Any]:
    answer = api.http.get("/alerts", headers=headers, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(api: Api, headers: dict[str, str]) -> dict[str, str]:
    return {one["name"]: one["id"] for one in seen(api, headers)["open"]}


def test_each_sees_the_alerts_of_its_agents(api: Api, made: Any) -> None:
    assert ids(api, made("read:*")).keys() == {"dead_letters", "memory"}
    assert ids(api, made("read:gem")).keys() == {"dead_letters"}
    assert ids(api, made("read:archie")).keys() == set()
    assert api.http.get("/alerts").status_code == 401


def test_what_is_over_is_shown_when_asked_for(api: Api, made: Any, store: Store) -> None:
    root = made("admin")
    compare(store, CONDITIONS[:1])
    assert "past" not in seen(api, root)
    (over,) = seen(api, root, all="1")["past"]
    assert (over["name"], over["state"]) == ("memory", "resolved")
    assert seen(api, made("read:gem"), all="1")["past"] == []


def test_a_silence_names_who_and_until_when(api: Api, made: Any) -> None:
    operator = made("operate", "read:gem")
    which = ids(api, operator)["dead_letters"]
    body = {"for_s": 7200, "comment": "being mended", "by": "somebody else"}
    answer = api.http.post(f"/alerts/{which[:8]}/silence", headers=operator, json=body)
    assert answer.json() == {
        "id": which,
        "name": "dead_letters",
        "state": "silenced",
        "by": "ann",
    }
    (alert,) = seen(api, operator)["open"]
    # The token's own name, whatever the body says.
    assert (alert["silenced"]["by"], alert["silenced"]["comment"]) == ("ann", "being mended")
    assert api.http.post(f"/alerts/{which}/unsilence", headers=operator).status_code == 200
    assert seen(api, operator)["open"][0]["silenced"] is None


def test_a_kind_is_silenced_by_who_sees_every_agent(api: Api, made: Any) -> None:
    body = {"for_s": 60}
    path = "/alerts/dead_letters/silence"
    answer = api.http.post(path, headers=made("operate", "read:gem"), json=body)
    assert (answer.status_code, "read:*" in answer.json()["detail"]) == (403, True)
    root = made("admin")
    assert api.http.post(path, headers=root, json=body).json()["id"] is None
    assert [one["name"] for one in seen(api, root)["silences"]] == ["dead_letters"]


def test_an_acknowledgement_is_shown(api: Api, made: Any) -> None:
    root = made("admin")
    which = ids(api, root)["memory"]
    answer = api.http.post(f"/alerts/{which}/ack", headers=root, json={"comment": "on it"})
    assert answer.json()["state"] == "acknowledged"
    shown = {one["name"]: one["acknowledged"] for one in seen(api, root)["open"]}
    assert (shown["memory"]["by"], shown["memory"]["comment"]) == ("ann", "on it")
    assert shown["dead_letters"] is None


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("memory/silence", {}, 400, "`for_s` is needed"),
        ("memory/silence", {"for_s": 0}, 400, "from 1 to"),
        ("memory/silence", {"for_s": True}, 400, "`for_s` is needed"),
        ("memory/silence", {"for_s": 9e9}, 400, "from 1 to"),
        ("memory/silence", {"for_s": 60, "comment": "a\nb"}, 400, "`comment` must be"),
        ("memory/silence", {"for_s": 60, "until": 1}, 400, "'until' is no key"),
        ("memroy/silence", {"for_s": 60}, 404, "did you mean memory"),
        ("memory/ack", {}, 409, "by its id"),
        ("memory/unsilence", {}, 404, "no silence of its own"),
        ("0123456789ab/ack", {}, 404, "neither the id of an alert"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(
    api: Api, made: Any, path: str, body: dict[str, Any], status: int, detail: str
) -> None:
    answer = api.http.post(f"/alerts/{path}", headers=made("admin"), json=body)
    assert (answer.status_code, detail in answer.json()["detail"]) == (status, True), answer.text


def test_marking_needs_the_scope_and_the_agent(api: Api, made: Any) -> None:
    which = ids(api, made("admin"))["dead_letters"]
    answer = api.http.post(f"/alerts/{which}/ack", headers=made("read:*"))
    assert (answer.status_code, "operate" in answer.json()["detail"]) == (403, True)
    # Who may not see it learns nothing of it.
    hidden = api.http.post(f"/alerts/{which}/ack", headers=made("operate", "read:archie"))
    assert hidden.status_code == 404


def test_an_unknown_parameter_is_refused(api: Api, made: Any) -> None:
    assert api.http.get("/alerts", headers=made("admin"), params={"past": "1"}).status_code == 400
