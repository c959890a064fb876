"""CloudEvents over HTTP in each of its modes, as other people's SDKs send them."""

import json
from typing import Any

import httpx
import pytest

from fleet.ledger import views
from fleet.store import Store
from tests.integration.api.conftest import Api

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
JSON = "application/json"
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def binary(api: Api, body: str | bytes = '{"text": "hello"}', **headers: str) -> httpx.Response:
    """Send an event in binary mode; `ce_id` is the header `ce-id`."""
    given = {"ce_specversion": "1.0", "content_type": JSON, **headers}
    sent = [(name.replace("_", "-").encode(), text.encode()) for name, text in given.items()]
    return api.http.post("/events", content=body, headers=[one for one in sent if one[1]])


def send(api: Api, body: Any, media_type: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body)
    return api.http.post("/events", content=content, headers={"Content-Type": media_type})


def event_of(store: Store, answer: httpx.Response) -> dict[str, Any]:
    """The event as its first agent will be told it."""
    assert answer.status_code == 202, answer.text
    record = views.get(store, answer.json()["dispatches"][0]["dispatch_id"], content=True)
    assert record
    found: dict[str, Any] = record["event"]
    return found


def test_one_event_is_the_same_in_every_mode(api: Api) -> None:
    attributes = {
        "specversion": "1.0",
        "id": 'a b%"\u20ac',
        "source": "/shop/\u00e9",
        "type": "com.example.order",
        "time": "2026-11-21t10:00:00z",
        "subject": "",
    }
    data = {"text": "h\u00e4llo", "to": "gem", "n": 1}
    first = send(api, {**attributes, "data": data}, STRUCTURED).json()
    assert (first["duplicate"], first["event_id"]) == (False, attributes["id"])
    # As the SDK of CNCF for Python writes them, and as its older one does.
    encoded = {"ce_id": "a%20b%25%22%E2%82%AC", "ce_source": "/shop/%C3%A9"}
    quoted = {"ce_id": '"a b%25\\"\u20ac"', "ce_source": "/shop/\u00e9"}
    for names in (encoded, quoted):
        again = binary(api, json.dumps(data), ce_type="com.example.order", **names)
        assert again.json() == {**first, "duplicate": True}
    (batched,) = send(api, [{**attributes, "data": data}], BATCH).json()
    assert batched == {**first, "duplicate": True}
    marked = b"\xef\xbb\xbf" + json.dumps({**attributes, "data": data}).encode()
    assert send(api, marked, STRUCTURED).json() == batched
    assert send(api, b"\xef\xbb\xbf[" + marked[3:] + b"]", BATCH).json() == [batched]
    other = binary(api, json.dumps({**data, "n": 2}), ce_type="com.example.order", **encoded)
    assert other.status_code == 409


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        ("hello", "text/plain"),
        ("\ufeffhello", "text/plain; charset=UTF-8"),
        ('"hello"', JSON),
        ('{"text": "hello"}', ""),
        ('\ufeff{"text": "hello"}', "application/vnd.example+json; charset=utf-8"),
    ],
)
def test_the_data_are_text_or_json(body: str, media_type: str, api: Api, store: Store) -> None:
    answer = binary(api, body, ce_type="t", content_type=media_type)
    assert event_of(store, answer)["data"]["text"] == "hello"


def test_attributes_of_the_fleet_stand_in_headers_too(api: Api, store: Store) -> None:
    more = {"ce_to": "gem", "ce_priority": "9", "ce_session": "s%201", "ce_hops": "2"}
    event = event_of(store, binary(api, "hi", ce_id="1", content_type="text/plain", **more))
    assert event["data"] == {"text": "hi", "to": ["gem"], "priority": 9, "session": "s 1"}
    assert event["hops"] == 2
    for headers in ({"ce_traceparent": TRACE}, {"traceparent": TRACE}):
        # In this trace: the intake is a span of it.
        traced = event_of(store, binary(api, **headers))["traceparent"]
        assert traced.split("-")[1] == TRACE.split("-")[1]
    keyed = binary(api, idempotency_key="binary-1").json()
    assert (keyed["event_id"], keyed["duplicate"]) == ("binary-1", False)


@pytest.mark.parametrize(
    ("headers", "status", "hint"),
    [
        ({"ce_specversion": "", "ce_id": "1"}, 400, "no `ce-specversion`"),
        ({"ce_specversion": "0.3"}, 400, "`specversion` must be '1.0'"),
        ({"ce_source": "Agent%3Aarchie"}, 400, "`source` must not begin with"),
        ({"ce_id": "%ff"}, 400, "'ce-id' is not percent-encoded UTF-8"),
        ({"ce_id": "a%0Ab"}, 400, "`id` must hold printable"),
        ({"ce_priority": "high"}, 400, "`priority`"),
        ({"ce_time": "today"}, 400, "`time`"),
        ({"content_type": "application/octet-stream"}, 415, "application/json or text/plain"),
        ({"content_type": "text/plain; charset=latin-1"}, 415, "UTF-8"),
        ({"content_encoding": "gzip"}, 415, "uncompressed"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    headers: dict[str, str], status: int, hint: str, api: Api
) -> None:
    answer = binary(api, **headers)
    assert (answer.status_code, hint in answer.json()["detail"]) == (status, True), answer.text


def test_a_header_that_stands_twice_is_refused(api: Api) -> None:
    headers = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-id", "2"), ("content-type", JSON)]
    answer = api.http.post("/events", content='{"text": "x"}', headers=headers)
    assert (answer.status_code, "'ce-id' stands twice" in answer.text) == (400, True)


@pytest.mark.parametrize("body", ["[1]", "7", ""])
def test_data_without_a_text_are_refused(body: str, api: Api) -> None:
    assert binary(api, body).status_code == 400


def test_a_whole_event_is_read_from_the_body_alone(api: Api) -> None:
    event = {"specversion": "1.0", "id": "in-the-body", "data": {"text": "x"}}
    headers = {"ce-specversion": "1.0", "ce-id": "in-a-header", "content-type": STRUCTURED}
    answer = api.http.post("/events", content=json.dumps(event), headers=headers)
    assert answer.json()["event_id"] == "in-the-body"
