"""Runner `http`: a service is an agent. It gets events by signed POST; its reply is the answer.

    [agents.shop]
    runner = "http"
    url = "https://shop.example/agent"
    secret = "whsec_..."

The body is the event as CloudEvents JSON. In a chain its `data.chain` holds the stage and the
endings of earlier stages. `webhook-id` is the dispatch's id, the same in each attempt, so a service
that stores the ids it has seen need not do the work twice.

With `callback = true` the service may answer later instead: see `tasks.runners.callback`.
"""

import json
import time
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import httpx

from fleet.formats import retry_after, webhook_signature
from fleet.ledger import Failure, FailureStage
from fleet.system.outgoing import UnusableVariable, client_options
from fleet.turn.turn import Turn, TurnFailed
from tasks.runners import callback
from tasks.runners.response_body import answer_of

#: These 4xx mean "not now"; the others mean "not like this".
_PASSING = frozenset({408, 409, 425, 429})
RETRY_AFTER_S_MAX = 3600.0


class HttpRunner:
    """Posts the event once, as one journalled step."""

    def run(self, turn: Turn) -> str:
        """The service's reply: `text` of a JSON object, otherwise the body as it is.

        With `callback` set, a reply of 202 announces a callback with the answer.

        Raises TurnFailed without an answer: retryable for a server's trouble, not for a refusal.
        """
        event = turn.event.to_wire()
        if turn.chain_position is not None:
            event["data"]["chain"] = asdict(turn.chain_position)
        request = {"url": turn.agent.url, "event": event}
        if turn.agent.callback:
            return callback.await_answer(turn, request, lambda more: _post(turn, {**event, **more}))
        return str(turn.step("http", request, lambda: _post(turn, event))["text"])


def _post(turn: Turn, event: dict[str, Any]) -> dict[str, Any]:
    agent = turn.agent
    body = json.dumps(event, ensure_ascii=False).encode()
    headers = {
        "content-type": "application/cloudevents+json",
        "idempotency-key": turn.claim.dispatch_id,
        "fleet-agent": turn.claim.agent,
        "fleet-attempt": str(turn.claim.attempt),
        "fleet-fence": str(turn.fence),
        **agent.headers,
    }
    if agent.secret is not None:
        secret = agent.secret.get_secret_value()
        headers |= webhook_signature.headers(secret, turn.claim.dispatch_id, body)
    # Until the turn's own limit: an agent's work takes its time.
    timeout = httpx.Timeout(
        max(turn.remaining_s, 0.1), connect=min(10.0, max(turn.remaining_s, 0.1))
    )
    try:
        with (
            httpx.Client(timeout=timeout, **client_options(str(agent.url))) as client,
            client.stream("POST", str(agent.url), content=body, headers=headers) as answer,
        ):
            reply_body = _read(answer, agent.max_output_bytes, turn.deadline)
    except UnusableVariable as error:
        raise _failed(f"the service cannot be reached: {error}", True) from error
    except httpx.HTTPError as error:
        # Its text may hold the address with a password.
        raise _failed(f"the service cannot be reached ({type(error).__name__})", True) from error
    except httpx.InvalidURL as error:
        raise _failed("the service's url is not valid", False) from error
    if not answer.is_success:
        passing = answer.status_code in _PASSING or answer.is_server_error
        reason, said = f"the service answered {answer.status_code}", _decoded(answer, reply_body)
        raise _failed(reason, passing, _retry_after(answer), said=said)
    # The body of a 202 is not the answer, which comes later.
    later = agent.callback and answer.status_code == HTTPStatus.ACCEPTED
    return {"text": "" if later else _text(answer, reply_body), "status": answer.status_code}


def _read(answer: httpx.Response, limit: int, deadline: float) -> bytes:
    received = bytearray()
    for piece in answer.iter_bytes():
        received += piece
        if len(received) > limit:
            raise _failed(f"the service answered more than {limit} bytes (max_output_bytes)", False)
        if time.monotonic() > deadline:  # one byte a second satisfies each read's own time limit
            raise _failed("the service's answer did not end in time", True)
    return bytes(received)


def _text(answer: httpx.Response, body: bytes) -> str:
    text = _decoded(answer, body)
    try:
        return answer_of(text, answer.headers.get("content-type", ""))
    except ValueError as error:
        raise _failed(
            "the service's answer is not JSON although its content-type says so", True, said=text
        ) from error


def _decoded(answer: httpx.Response, body: bytes) -> str:
    return body.decode(answer.encoding or "utf-8", errors="replace")


def _retry_after(answer: httpx.Response) -> float | None:
    wait_s = retry_after.seconds(answer.headers)
    return None if wait_s is None else min(wait_s, RETRY_AFTER_S_MAX)


def _failed(
    reason: str, retryable: bool, retry_after_s: float | None = None, *, said: str = ""
) -> TurnFailed:
    return TurnFailed(
        Failure(
            stage=FailureStage.TOOL,
            reason=reason,
            retryable=retryable,
            retry_after_s=retry_after_s,
            kind="ServiceFailed",
            message=said,
        )
    )
