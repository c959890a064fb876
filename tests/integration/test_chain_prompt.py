"""Each runner tells an agent about the chain it is a stage of."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from fleet.config.agents import AgentConfig
from fleet.turn.turn import Turn, TurnFailed
from tasks.runners.command import CommandRunner
from tasks.runners.http import HttpRunner
from tasks.runners.llm import LlmRunner
from tests.fakes.provider import Provider
from tests.fixtures.chains import MakeBooks, Run
from tests.fixtures.marks import LITELLM_WARNINGS

pytestmark = LITELLM_WARNINGS

TOLD = """\
ship it

[stage 1, archie: completed, approve]
a plan

[stage 2, human:ops: completed, approve]

This is stage 3 of 3 (gem) of the chain 'release'. You may end your answer with one line that \
decides how it goes on: APPROVE, REJECT: why (the chain stops), or REVISE: what to change (an \
earlier stage does its work again)."""


def turn_of(books: MakeBooks, **agent: Any) -> Turn:
    """The third stage, after an agent and a person."""
    run = Run(books("archie", "human:ops", "gem"))
    run.answer("archie", "a plan")
    run.decide(2, "ops")
    return Turn(
        claim=run.claim("gem"),
        agent=AgentConfig(**agent),
        deadline=time.monotonic() + 30,
        ledger=run.books.ledger,
    )


def test_a_function_has_it_as_it_is(books: MakeBooks) -> None:
    turn = turn_of(books, runner="python", python="a:b")
    assert turn.text == "ship it"
    assert turn.prompt == TOLD
    assert turn.chain_position is not None
    assert (turn.chain_position.chain, turn.chain_position.stage, turn.chain_position.stages) == (
        "release",
        3,
        3,
    )
    assert [(one.agent, one.answer) for one in turn.earlier] == [
        ("archie", "a plan"),
        ("human:ops", ""),
    ]


def test_a_model_is_told_with_the_text(books: MakeBooks, fleet_here: None) -> None:
    with Provider() as provider:
        params = {"api_base": provider.url, "api_key": "sk-x"}
        LlmRunner().run(turn_of(books, model="openai/ok", params=params))
        (request,) = provider.requests
    assert request.body["messages"] == [{"role": "user", "content": TOLD}]


@pytest.mark.parametrize("kind", ["limited", "strange", "refused", "silent"])
def test_a_stage_is_not_approved_by_half_an_answer(
    books: MakeBooks, fleet_here: None, kind: str
) -> None:
    with Provider() as provider:
        params = {"api_base": provider.url, "api_key": "sk-x"}
        turn = turn_of(books, model=f"openai/{kind}", params=params)
        with pytest.raises(TurnFailed) as caught:
            LlmRunner().run(turn)
    assert caught.value.failure.stage == "llm"


def test_a_program_is_told_with_the_text(books: MakeBooks) -> None:
    assert CommandRunner().run(turn_of(books, runner="command", command=["cat"])) == TOLD


@pytest.fixture
def echo() -> Iterator[str]:
    """A service that answers what it was sent; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_service_finds_it_in_the_data(books: MakeBooks, echo: str) -> None:
    event = json.loads(HttpRunner().run(turn_of(books, runner="http", url=echo)))
    assert event["data"]["text"] == "ship it"
    chain = event["data"]["chain"]
    assert (chain["chain"], chain["stage"], chain["stage_name"]) == ("release", 3, "gem")
    assert [one["answer"] for one in chain["earlier"]] == ["a plan", ""]
