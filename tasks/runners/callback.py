"""A service that answers later: it replies 202, and calls the fleet back.

The posted event carries `fleetcallback`, a CloudEvents attribute: the URL to call. The post is one
journalled step, the callback another. So a turn whose worker is killed while it waits does not post
again, and finds an answer that came after the kill.

An attempt without a callback within the turn's limit fails, and so does an attempt whose service
calls back a failure. Both are journalled with their attempt: a later attempt posts the event again.
"""

from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from fleet import runtime
from fleet.ledger import Failure, FailureStage
from fleet.turn import callbacks
from fleet.turn.turn import Turn, TurnFailed
from tasks.runners.response_body import answer_of, value_of

#: Time before the turn's limit, to journal that no callback came.
SPARE_S = 0.5

#: Posts the event with these attributes added; the reply's `status` and `text`.
Post = Callable[[Mapping[str, Any]], dict[str, Any]]


def await_answer(turn: Turn, request: Mapping[str, Any], post: Post) -> str:
    """The service's answer: its reply, or after a 202 its callback.

    Raises TurnFailed. Each round except the last was ended by an earlier attempt.
    """
    anew, number = False, 0
    while True:
        number += 1
        posted = turn.step(
            "post", {**request, "round": number}, partial(_post_event, turn, number, anew, post)
        )
        if posted["status"] != HTTPStatus.ACCEPTED:
            return str(posted["text"])
        called = turn.step("callback", {"round": number}, partial(_wait, turn, number))
        if "text" in called:
            return str(called["text"])
        if called["attempt"] == turn.claim.attempt:
            raise _failure_of(called)
        anew = "error" in called


def _post_event(turn: Turn, number: int, anew: bool, post: Post) -> dict[str, Any]:
    settings = runtime.current().settings
    url = callbacks.address(settings, turn.claim.dispatch_id)
    if url is None:
        reason = "no API of this fleet is known here: set api.public_url"
        raise _failed(FailureStage.TOOL, reason, retryable=True)
    # First, so that a callback that overtakes the reply is accepted.
    if callbacks.get(runtime.current().store, turn.claim, number, anew=anew) is not None:
        return {"status": int(HTTPStatus.ACCEPTED), "text": ""}  # the callback came after all
    return post({"fleetcallback": url})


def _wait(turn: Turn, number: int) -> dict[str, Any]:
    until = turn.deadline - SPARE_S
    called = callbacks.wait(runtime.current().store, turn.claim, number, until)
    attempt = turn.claim.attempt
    if called is None:
        return {"late": True, "attempt": attempt}
    try:
        value = value_of(called.body, called.media_type)
        text = answer_of(called.body, called.media_type)
    except ValueError:  # the API accepted the body as JSON
        return {"error": "unreadable", "retryable": False, "attempt": attempt}
    if isinstance(value, dict) and "text" not in value and isinstance(value.get("error"), str):
        again = value.get("retryable") is True
        return {"error": value["error"], "retryable": again, "attempt": attempt}
    return {"text": text}


def _failure_of(called: Mapping[str, Any]) -> TurnFailed:
    if "late" in called:
        reason = "the service did not call back within the turn's limit"
        return _failed(FailureStage.TIMEOUT, reason, retryable=True)
    reason = "the service called back a failure"
    said = str(called["error"])
    return _failed(FailureStage.TOOL, reason, retryable=called["retryable"], said=said)


def _failed(stage: FailureStage, reason: str, *, retryable: bool, said: str = "") -> TurnFailed:
    return TurnFailed(
        Failure(stage=stage, reason=reason, retryable=retryable, kind="ServiceFailed", message=said)
    )
