"""`POST /events`: what is accepted, what is refused and how, and that nothing hurts the API."""

import asyncio
import json
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from fleet.store import Store, keys
from routing.event import EVENT_BYTES_MAX
from tests.fixtures.leaks import undeclared
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import NO_SPOOL, Api, MakeApi, away

SECRET = "s3cret-prompt"
#: Requests at the same moment.
BURST = 600


def refused(answer: httpx.Response, status: int) -> str:
    """The sentence of a problem document, which repeats nothing of what was sent."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= problem.keys()
    assert SECRET not in answer.text
    return str(problem["detail"])


def test_an_accepted_event_names_its_dispatches(api: Api) -> None:
    answer = api.send(to=["@reviewers", "gem"], id="two-agents")
    assert answer.status_code == 202
    wire = answer.json()
    assert wire["event_id"] == "two-agents"
    assert wire["duplicate"] is False
    assert [row["agent"] for row in wire["dispatches"]] == ["archie", "gem"]


def test_a_cloud_event_and_the_shorthand_are_one_event(api: Api) -> None:
    cloud = {"specversion": "1.0", "id": "same", "source": "fleet", "data": {"text": "hello"}}
    kind = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
    first = api.http.post("/events", content=json.dumps(cloud), headers=kind).json()
    second = api.send(id="same").json()
    assert second == {**first, "duplicate": True}


def test_an_idempotency_key_is_the_id_of_an_event_that_has_none(api: Api) -> None:
    first, quoted, own = (
        api.http.post("/events", json=event, headers={"Idempotency-Key": key}).json()
        for event, key in (
            ({"text": "hello"}, "key-1"),
            ({"text": "hello"}, '"key-1"'),
            ({"text": "hello", "id": "own"}, "key-1"),
        )
    )
    assert (first["event_id"], first["duplicate"]) == ("key-1", False)
    assert quoted == {**first, "duplicate": True}
    assert own["event_id"] == "own"


@pytest.mark.parametrize("key", ["", '""', "k" * 257, "caf\xe9"])
def test_an_idempotency_key_is_printable(api: Api, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    answer = api.http.post("/events", json={"text": "hello"}, headers=headers)
    assert "Idempotency-Key" in refused(answer, 400)


def test_two_keys_or_two_lengths_are_refused(api: Api) -> None:
    keys = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    answer = api.http.post("/events", json={"text": "hello"}, headers=keys)
    assert "twice" in refused(answer, 400)
    lengths = {"Content-Length": "4", "Transfer-Encoding": "chunked"}
    answer = api.http.post("/events", content=iter([b"{}"]), headers=lengths)
    assert "one length" in refused(answer, 400)


def test_the_same_id_at_once_from_two_processes_is_one_event(
    api: Api, make_api: MakeApi, valkey: Valkey
) -> None:
    apis = [api, make_api(valkey.url)]
    start = threading.Barrier(8)

    def race(number: int) -> Any:
        start.wait()
        return apis[number % 2].send(id="raced", to="@reviewers").json()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(race, range(8)))
    assert sorted(answer["duplicate"] for answer in answers) == [False] + [True] * 7
    assert len({json.dumps(answer["dispatches"]) for answer in answers}) == 1


def test_a_batch_answers_for_each_event(api: Api) -> None:
    batch = [{"text": "hello", "id": "b-1"}, {"text": ""}, {"text": "x", "to": "nobody"}, 7]
    kind = {"Content-Type": "application/cloudevents-batch+json"}
    answer = api.http.post("/events", content=json.dumps(batch), headers=kind)
    assert answer.status_code == 202
    accepted, *errors = answer.json()
    assert accepted["event_id"] == "b-1"
    assert [row["error"]["status"] for row in errors] == [400, 404, 400]


def test_a_batch_with_a_key_repeats_as_a_whole(api: Api) -> None:
    batch = [{"text": "one"}, {"text": "two", "id": "own-2"}]
    first, second = (
        api.http.post("/events", json=batch, headers={"Idempotency-Key": "batch-key"}).json()
        for _ in range(2)
    )
    assert [row["event_id"] for row in first] == ["batch-key.0", "own-2"]
    assert second == [{**row, "duplicate": True} for row in first]


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"", "not JSON"),
        (b'{"text": "s3cret-prompt"', "line 1"),
        (b'{"text": "s3cret-prompt", }', "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "too deeply"),
        (b'{"text":"x","data":' + b'{"a":' * 100 + b"1" + b"}" * 101, "nested"),
        (b'{"text":"x","data":{"a":NaN}}', "number"),
        (b'{"text":"x","data":{"a":1e999}}', "number"),
        (b'{"text":"x","data":{"a":' + b"9" * 5000 + b"}}", "number"),
        (b'{"text":"x","to":"archie","to":"gem"}', "'to' stands twice"),
        (b'{"text":"x","data":{"a":[{"b":1,"b":2}]}}', "'b' stands twice"),
        (b"7", "JSON object"),
        (b"[]", "at least one"),
        (b"{}", "`text`"),
        (b'{"text": ""}', "empty"),
        (b'{"text": "  \\n "}', "empty"),
        (b'{"text": "s3cret-prompt\\u0000"}', "NUL"),
        (b'{"text": "s3cret-prompt\\ud800"}', "surrogate"),
        (b'{"text": "x", "data": {"\\ud800": 1}}', "surrogate"),
        (b'{"text": "x", "id": "a\\nb"}', "`id`"),
        (b'{"text": "x", "id": "' + b"a" * 257 + b'"}', "`id`"),
        (b'{"text": "x", "id": 7}', "`id`"),
        (b'{"text": "x", "time": "yesterday"}', "`time`"),
        (b'{"text": "x", "time": "2026-11-21\\ud80010:00:00Z"}', "`time`"),
        (b'{"text": "x", "priority": 10}', "`priority`"),
        (b'{"text": "x", "to": []}', "`to`"),
        (b'{"text": "x", "txet": "s3cret-prompt"}', "txet"),
        (b'{"specversion": "2.0", "data": {"text": "x"}}', "specversion"),
        (json.dumps({"text": "x", "to": [f"a{n}" for n in range(1001)]}).encode(), "1000"),
    ],
)
def test_a_malformed_body_is_refused_in_one_sentence(api: Api, body: bytes, hint: str) -> None:
    kind = {"Content-Type": "application/json"}
    detail = refused(api.http.post("/events", content=body, headers=kind), 400)
    assert hint in detail
    assert "\n" not in detail


@pytest.mark.parametrize("to", ["nobody", "@nobody", ["archie", "nobody"], "\ud800"])
def test_an_unknown_target_is_not_found(api: Api, to: Any) -> None:
    kind = {"Content-Type": "application/json"}
    body = json.dumps({"text": "x", "to": to})
    refused(api.http.post("/events", content=body, headers=kind), 404)


@pytest.mark.parametrize("years", [-20, 20])
def test_the_sender_s_clock_decides_nothing(api: Api, years: int) -> None:
    time = datetime.now(UTC) + timedelta(days=365 * years)
    sent = api.send(time=time.isoformat()).json()
    record = api.http.get(f"/dispatches/{sent['dispatches'][0]['dispatch_id']}").json()
    assert record["state"] == "queued"
    age = datetime.now(UTC) - datetime.fromisoformat(record["accepted_at"])
    assert abs(age) < timedelta(minutes=1)


def test_ten_thousand_mentions_and_a_thousand_targets_are_events_like_others(api: Api) -> None:
    mentions = " ".join(f"@agent{number} @gem" for number in range(10_000))
    assert [row["agent"] for row in api.send(text=mentions).json()["dispatches"]] == ["gem"]
    same = api.send(to=["gem"] * 1000)
    assert same.status_code == 202


def test_an_event_of_almost_one_mebibyte_is_kept_whole(api: Api, store: Store) -> None:
    text = "x" * (EVENT_BYTES_MAX - 100)
    sent = api.send(text=text, to="archie").json()
    record = api.http.get(f"/dispatches/{sent['dispatches'][0]['dispatch_id']}?content=1").json()
    assert record["event"]["data"]["text"] == text


@pytest.mark.parametrize("size", [EVENT_BYTES_MAX + 1, 5 * EVENT_BYTES_MAX])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_larger_body_is_refused(api: Api, size: int, chunked: bool) -> None:
    kind = {"Content-Type": "application/json"}
    content: Any = (b"x" * 65536 for _ in range(size // 65536 + 1)) if chunked else b"x" * size
    detail = refused(api.http.post("/events", content=content, headers=kind), 413)
    assert str(EVENT_BYTES_MAX) in detail
    assert api.send().status_code == 202


def raw_answer(api: Api, request: bytes) -> bytes:
    """The answer to these bytes, up to the end of the connection."""
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


def head(*fields: str) -> bytes:
    lines = ["POST /events HTTP/1.1", "Host: localhost", "Content-Type: application/json", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_a_length_that_lies_is_not_believed(api: Api) -> None:
    body = b'{"text": "x"}'
    closing = "Connection: close"
    shorter = head("Content-Length: 5", closing) + body
    assert raw_answer(api, shorter).startswith(b"HTTP/1.1 400")
    nobody_sends_it = head(f"Content-Length: {10**12}", "Expect: 100-continue")
    assert raw_answer(api, nobody_sends_it).startswith(b"HTTP/1.1 413")
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head("Content-Length: 1000") + body)  # and hangs up in the middle
    assert api.send().status_code == 202


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_another_media_type_is_refused(api: Api, headers: dict[str, str]) -> None:
    refused(api.http.post("/events", content=b'{"text": "x"}', headers=headers), 415)


def test_a_full_agent_refuses_and_says_when_to_come_back(api: Api) -> None:
    assert [api.send(to="small").status_code for _ in range(2)] == [202, 202]
    answer = api.send(to="small", text=SECRET)
    assert "max_pending" in refused(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["retry_after_s"] > 0


def test_a_batch_of_too_many_events_is_refused(api: Api) -> None:
    refused(api.http.post("/events", json=[{"text": "x"}] * 1001), 413)


def test_many_senders_at_once_get_each_their_own_answer(api: Api) -> None:
    with ThreadPoolExecutor(16) as pool:
        sent = pool.map(lambda number: (number, api.send(id=f"mine-{number}")), range(200))
        assert all(answer.json()["event_id"] == f"mine-{number}" for number, answer in sent)


def test_one_refused_event_does_not_touch_those_accepted_with_it(api: Api) -> None:
    events = [{"text": "good", "id": f"g-{n}"} if n % 2 else {"text": "\0"} for n in range(60)]
    with ThreadPoolExecutor(16) as pool:
        statuses = [
            answer.status_code
            for answer in pool.map(lambda event: api.http.post("/events", json=event), events)
        ]
    assert statuses == [400, 202] * 30


def test_without_a_broker_nothing_is_accepted_and_the_sender_is_told(
    make_api: MakeApi, valkey: Valkey
) -> None:
    api = make_api(valkey.url, **NO_SPOOL)
    api.send(id="before")
    with away(valkey):
        answer = api.send(text=SECRET)
        refused(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
        refused(api.http.post("/events", json=[{"text": SECRET}]), 503)
    wait_until(lambda: api.send(id="after").status_code == 202)
    assert api.send(id="before").json()["duplicate"] is True


def test_a_store_at_its_memory_limit_refuses_and_shows_nothing(
    make_api: MakeApi, valkey: Valkey, store: Store
) -> None:
    api = make_api(valkey.url, **NO_SPOOL)
    memory: Any = store.client.info("memory")
    limit = memory["used_memory"]
    store.client.config_set("maxmemory", limit)
    store.client.config_set("maxmemory-policy", "noeviction")
    try:
        assert "memory" in refused(api.http.post("/events", json={"text": SECRET}), 429)
        answer = api.http.post("/events", json=[{"text": SECRET}] * 3)
        assert [one["error"]["status"] for one in answer.json()] == [429] * 3
        assert SECRET not in answer.text
        refused(api.http.get("/readyz"), 503)
    finally:
        store.client.config_set("maxmemory", 0)
    wait_until(lambda: api.send().status_code == 202)


def test_an_event_that_went_round_too_often_is_refused(api: Api) -> None:
    assert api.send(hops=8).status_code == 202
    answer = api.send(hops=9)
    assert "routes.max_hops allows 8" in refused(answer, 400)
    assert answer.json()["type"] == "urn:fleet:problem:too-many-hops"


def test_no_key_is_left_that_nothing_will_remove(api: Api, store: Store) -> None:
    assert api.http.get("/readyz").status_code == 200
    assert not undeclared(store.client)


def test_what_was_sent_is_found_in_no_key_but_the_payload(api: Api, store: Store) -> None:
    sent = api.send(text=SECRET, to="gem").json()
    record: Any = store.client.hgetall(keys.dispatch(sent["dispatches"][0]["dispatch_id"]))
    assert SECRET not in json.dumps(record)
    assert SECRET in str(store.client.get(keys.payload(record["event"])))


def test_a_burst_of_requests_is_answered_without_an_error(api: Api) -> None:
    """Far more at once than the API has threads or connections to its store."""
    limits = httpx.Limits(max_connections=BURST, max_keepalive_connections=0)

    async def burst() -> list[int]:
        async with httpx.AsyncClient(
            base_url=api.url, timeout=50, trust_env=False, limits=limits
        ) as http:
            calls = [http.post("/events", json={"text": "hello"}) for _ in range(BURST // 2)]
            calls += [http.get("/dispatches", params={"limit": 1}) for _ in range(BURST // 2)]
            return [answer.status_code for answer in await asyncio.gather(*calls)]

    assert Counter(asyncio.run(burst())) == {202: BURST // 2, 200: BURST // 2}


def test_a_busy_session_is_a_conflict_under_reject(make_api: MakeApi, valkey: Valkey) -> None:
    api = make_api(valkey.url, FLEET_AGENTS__GEM__ON_BUSY="reject")
    assert api.send(to="gem", session="s", id="busy-1").status_code == 202
    answer = api.send(to="gem", session="s", text=SECRET)
    assert (
        refused(answer, 409)
        == "The session is busy, and gem takes one event of it at a time: send it later."
    )
    assert answer.json()["type"] == "urn:fleet:problem:session-busy"
    assert answer.headers["Retry-After"] == "1"
    assert api.send(to="gem", session="s", id="busy-1").json()["duplicate"] is True
    assert api.send(to="gem", session="other").status_code == 202
    batch = [{"to": agent, "text": "x", "session": "s"} for agent in ("gem", "archie")]
    first, second = api.http.post("/events", json=batch).json()
    assert first["error"]["status"] == 409
    assert second["dispatches"][0]["agent"] == "archie"


def test_one_cloudevent_is_no_batch(api: Api) -> None:
    headers = {"content-type": "application/cloudevents+json"}
    answer = api.http.post("/events", content='[{"text": "x"}]', headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:fleet:problem:invalid-event")
