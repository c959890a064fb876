"""A step's request is kept for people, whole or with its ends."""

import json
from typing import Any

from fleet.turn.journal import REQUEST_CHARS_MAX, Journal


def kept(request: Any) -> Any:
    journal = Journal(1, dict)
    return json.loads(journal.begin("llm", request).entry(1, "done", {}))["request"]


def test_a_short_request_is_kept_as_it_was_when_the_step_began() -> None:
    messages = [{"role": "user", "content": "Hello \ud800"}]
    journal = Journal(1, dict)
    step = journal.begin("llm", {"messages": messages})
    messages.append({"role": "tool", "content": "later"})
    request = json.loads(step.entry(1, "done", {}))["request"]
    assert request == {"messages": [{"role": "user", "content": "Hello ?"}]}


def test_a_long_request_keeps_the_ends_of_its_parts() -> None:
    request = kept({"model": "a/b", "messages": [{"content": "x" * 20_000 + " the question"}]})
    assert request["model"] == "a/b"
    assert request["messages"].endswith('the question"}]')
    assert len(json.dumps(request)) < 2 * REQUEST_CHARS_MAX
    assert len(kept("y" * 20_000)) < 2 * REQUEST_CHARS_MAX
