"""The trace of a request is the trace of its events."""

from typing import Any

from tests.integration.api.conftest import Api

HEADER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-01"


def kept(api: Api, answer: dict[str, Any]) -> str | None:
    dispatch_id = answer["dispatches"][0]["dispatch_id"]
    record = api.http.get(f"/dispatches/{dispatch_id}", params={"content": "1"}).json()
    found: str | None = record["event"].get("traceparent")
    return found


def test_an_event_has_the_trace_of_its_request_unless_it_names_another(api: Api) -> None:
    plain, own = {"text": "hello"}, {"text": "hello", "traceparent": OTHER}
    headers = {"traceparent": HEADER}
    alone = api.http.post("/events", json=plain, headers=headers).json()
    both = api.http.post("/events", json=[plain, own, "nonsense"], headers=headers).json()
    assert [kept(api, answer) for answer in (alone, *both[:2])] == [HEADER, HEADER, OTHER]
    assert both[2]["error"]["status"] == 400
    odd = api.http.post("/events", json=plain, headers={"traceparent": "nonsense"}).json()
    assert kept(api, odd) is None
