"""The fake provider keeps its word: what the runner's tests say about providers rests on it."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.answers import TEXT, WORDS
from tests.fakes.provider import ID_HEADER, Provider, message_id, read_log
from tests.fixtures.processes import wait_until

ASK = [{"role": "user", "content": "a question"}]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


def post(provider: Provider, model: str, *, timeout: float = 5.0, **body: object) -> httpx.Response:
    return httpx.post(
        f"{provider.url}/chat/completions",
        json={"model": model, "messages": ASK} | body,
        headers={"authorization": "Bearer sk-secret"},
        timeout=timeout,
    )


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@contextmanager
def separate(log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "tests.fakes.provider", "0", str(log)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_answers(provider: Provider) -> None:
    document = post(provider, "ok").json()
    assert document["choices"][0]["message"]["content"] == TEXT
    assert document["usage"]["total_tokens"] == 19


def test_streams_the_same_answer(provider: Provider) -> None:
    chunks = events(post(provider, "ok", stream=True, stream_options={"include_usage": True}))
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1]) == TEXT
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["total_tokens"] == 19


def test_calls_a_tool_and_takes_its_result(provider: Provider) -> None:
    tools = [{"type": "function", "function": {"name": "search", "parameters": {}}}]
    choice = post(provider, "tools", tools=tools).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "search"
    done = [*ASK, choice["message"], {"role": "tool", "tool_call_id": "call_1", "content": "42"}]
    answer = post(provider, "tools", tools=tools, messages=done).json()["choices"][0]
    assert answer["message"]["content"] == TEXT


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("r429", 429),
        ("e500", 500),
        ("e503", 503),
        ("auth", 401),
        ("forbidden", 403),
        ("nomodel", 404),
        ("ctx", 400),
        ("policy", 400),
        ("badrequest", 400),
    ],
)
def test_refuses(provider: Provider, model: str, status: int) -> None:
    response = post(provider, model)
    assert response.status_code == status
    assert response.json()["error"]["code"]


def test_says_when_to_come_back(provider: Provider) -> None:
    assert post(provider, "r429").headers["retry-after"] == "1"
    assert post(provider, "r429-30").headers["retry-after"] == "30"


def test_quotes_the_prompt_and_the_key_as_real_providers_do(provider: Provider) -> None:
    assert "a question, sk-secret" in post(provider, "badrequest").text


def test_recovers_after_so_many_requests(provider: Provider) -> None:
    statuses = [post(provider, "flaky2").status_code for _ in range(4)]
    assert statuses == [503, 503, 200, 200]


def test_answers_late(provider: Provider) -> None:
    started = time.monotonic()
    assert post(provider, "delay-0.2").status_code == 200
    assert time.monotonic() - started >= 0.2


def test_sends_half_a_document(provider: Provider) -> None:
    with pytest.raises(json.JSONDecodeError):
        post(provider, "badjson").json()


def test_leaves_out_the_choices(provider: Provider) -> None:
    assert "choices" not in post(provider, "nochoices").json()
    assert post(provider, "empty").json()["choices"] == []


@pytest.mark.parametrize("model", ["drop", "cut"])
def test_closes_the_connection(provider: Provider, model: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        post(provider, model)


@pytest.mark.parametrize(("model", "stream"), [("hang", False), ("stall", False), ("stall", True)])
def test_stops_sending(provider: Provider, model: str, stream: bool) -> None:
    with pytest.raises(httpx.ReadTimeout):
        post(provider, model, timeout=0.2, stream=stream)


def test_cuts_a_stream_after_some_words(provider: Provider) -> None:
    words = [
        c["choices"][0]["delta"]["content"] for c in events(post(provider, "cut", stream=True))
    ]
    assert "".join(words).split() == WORDS[: len(words)]
    assert 0 < len(words) < len(WORDS)


def test_trickles(provider: Provider) -> None:
    arrivals = []
    with httpx.stream(
        "POST",
        f"{provider.url}/chat/completions",
        json={"model": "slow", "messages": ASK, "stream": True},
    ) as response:
        for _ in response.iter_raw():
            arrivals.append(time.monotonic())
            if len(arrivals) == 3:
                break
    assert arrivals[2] - arrivals[0] > 0.3


def test_records_each_request(provider: Provider) -> None:
    post(provider, "ok", metadata={"id": "mine"})
    post(provider, "e500", temperature=0.5)
    httpx.post(
        f"{provider.url}/chat/completions",
        json={"model": "ok", "messages": ASK},
        headers={ID_HEADER: "named"},
    )
    assert [(r.model, r.id) for r in provider.requests] == [
        ("ok", "mine"),
        ("e500", message_id("a question")),
        ("ok", "named"),
    ]
    assert provider.requests[1].body["temperature"] == 0.5
    assert provider.count("ok") == 2


def test_tells_a_whole_answer_from_one_nobody_got(provider: Provider) -> None:
    post(provider, "ok")
    with pytest.raises(httpx.ReadTimeout):
        post(provider, "hang", timeout=0.1)
    _, hung = provider.requests
    wait_until(lambda: provider.requests[0].finished is not None)
    assert hung.finished is None


def test_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with Provider() as provider, httpx.Client() as kept_alive:
        kept_alive.post(f"{provider.url}/chat/completions", json={"model": "ok", "messages": ASK})
        with pytest.raises(httpx.ReadTimeout):
            post(provider, "hang", timeout=0.1)
    assert threading.active_count() == before


def test_runs_as_a_process_whose_log_survives_it(tmp_path: Path) -> None:
    log = tmp_path / "provider.jsonl"
    with separate(log) as (process, url):
        call = {"model": "ok", "messages": ASK}
        assert httpx.post(f"{url}/chat/completions", json=call).status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/chat/completions", json=call | {"model": "hang"}, timeout=0.1)
        wait_until(lambda: read_log(log)[0].finished is not None)
        process.kill()
    answered, hung = read_log(log)
    assert (answered.model, answered.id) == ("ok", message_id("a question"))
    assert (hung.model, hung.finished) == ("hang", None)


def test_stops_when_told(tmp_path: Path) -> None:
    with separate(tmp_path / "log") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0


def test_leaves_out_a_torn_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    entry = {"call": "1", "mark": "started", "at": 1.0, "model": "ok", "id": "a", "stream": False}
    log.write_text(json.dumps(entry) + '\n{"call": "1", "ma')
    assert [request.finished for request in read_log(log)] == [None]
