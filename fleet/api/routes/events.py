"""`POST /events`: intake over HTTP.

Events that arrive while others are being accepted are accepted together, in one round trip. No
event waits for company: while the intake is idle, an event goes at once.
"""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from fleet.api.auth.access import Access, caller_of
from fleet.api.request.binary_mode import check_binary, is_binary, read_binary
from fleet.api.request.body import ClientGone, check_media_type, parse_json, read_body
from fleet.api.request.bounded_threads import BoundedThreads, ThreadsBusy
from fleet.api.request.problems import Problem, as_problem
from fleet.intake.intake import Answer, Intake, Sender, Submission
from fleet.ledger import Accepted
from routing.event import EVENT_BYTES_MAX, NAME_CHARS_MAX

MEDIA_TYPE = "application/cloudevents+json"  #: one event, never a batch
BATCH_MEDIA_TYPE = "application/cloudevents-batch+json"
#: Events in one request; each may reach every agent.
BATCH_MAX = 1000

#: One for the groups, one for batches.
_THREADS = 2
#: Events in one round trip; more would only make the first sender wait.
_GROUP_MAX = 64
#: More requests wait only while the store is in trouble; they are refused.
_WAITING_MAX = 1024

_JSON = [(b"content-type", b"application/json")]

Waiting = tuple[Submission, asyncio.Future[Answer]]


class GroupedIntake:
    """The intake, shared by all requests of this process."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._threads = BoundedThreads("intake", _THREADS, _WAITING_MAX)
        self._waiting: deque[Waiting] = deque()
        self._serving: asyncio.Task[None] | None = None

    async def accept(self, submission: Submission) -> Accepted:
        """Accept one event, as `Intake.accept` does; ThreadsBusy when too many wait already."""
        if len(self._waiting) >= _WAITING_MAX:
            raise ThreadsBusy("Too many events wait to be accepted already: send it again.")
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((submission, answered))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        answer = await answered
        if isinstance(answer, Accepted):
            return answer
        raise answer

    async def accept_batch(self, submissions: Sequence[Submission]) -> list[Answer]:
        """Accept each event by itself, as `Intake.accept_batch` does."""
        return await self._threads.run(lambda: self._intake.accept_batch(submissions))

    async def _serve(self) -> None:
        """Accept one group after the other: two at once only compete for the interpreter's lock."""
        while self._waiting:
            size = min(len(self._waiting), _GROUP_MAX)
            await self._serve_group([self._waiting.popleft() for _ in range(size)])
        # No await since the last check: no event is left to a task that has just ended.
        self._serving = None

    async def _serve_group(self, group: list[Waiting]) -> None:
        submissions, waiting = zip(*group, strict=True)
        try:
            answers = await self.accept_batch(submissions)
        except Exception as error:  # noqa: BLE001 - each request gets it
            for request in waiting:
                if not request.done():
                    request.set_exception(error)
            return
        for request, answer in zip(waiting, answers, strict=True):
            if not request.done():  # otherwise its client is gone, and the event is accepted
                request.set_result(answer)


class EventsRoute:
    """The ASGI application behind `POST /events`."""

    def __init__(self, intake: Intake, access: Access) -> None:
        self._grouped = GroupedIntake(intake)
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises the errors that `as_problem` knows."""
        headers, caller = Headers(scope=scope), caller_of(scope)
        binary = is_binary(headers)
        media_type = check_binary(headers) if binary else check_media_type(scope)
        limit = min(EVENT_BYTES_MAX, caller.body_bytes or EVENT_BYTES_MAX)
        try:
            body = await read_body(scope, receive, limit)
        except ClientGone:
            return
        value = read_binary(headers, body) if binary else parse_json(body)
        new = template(scope)
        if media_type == BATCH_MEDIA_TYPE or (isinstance(value, list) and media_type != MEDIA_TYPE):
            events = _batch(value, new)
            self._access.charge_batch(caller, len(events))
            answers = await self._grouped.accept_batch(events)
            answer: Any = [_to_wire(one) for one in answers]
        else:
            answer = (await self._grouped.accept(replace(new, raw=value))).to_wire()
        text = json.dumps(answer).encode()
        shape = [*_JSON, (b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": HTTPStatus.ACCEPTED, "headers": shape})
        await send({"type": "http.response.body", "body": text})


def template(scope: Scope) -> Submission:
    """A submission without an event: its sender, and the values that the headers give."""
    caller = caller_of(scope)
    may = caller.rights.need_send if caller.token else None
    return Submission(
        raw=None,
        sender=Sender(sent_by=caller.sent_by, may=may),
        id=_idempotency_key(scope),
        traceparent=Headers(scope=scope).get("traceparent", ""),
    )


def _batch(value: object, new: Submission) -> list[Submission]:
    if not isinstance(value, list) or not value:
        detail = "A batch must be a JSON array of at least one event."
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid-event", detail)
    if len(value) > BATCH_MAX:
        detail = f"A batch must not hold more than {BATCH_MAX} events: split it."
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", detail)
    return [
        replace(new, raw=raw, id=new.id and f"{new.id}.{place}") for place, raw in enumerate(value)
    ]


def _to_wire(answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Accepted):
        return answer.to_wire()
    return {"error": as_problem(answer).to_wire()}


def _idempotency_key(scope: Scope) -> str | None:
    """The `Idempotency-Key` header, with or without the quotes its draft standard asks for."""
    values = Headers(scope=scope).getlist("idempotency-key")
    if not values:
        return None
    if len(values) > 1:
        detail = "`Idempotency-Key` stands twice in the headers: send one."
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-parameter", detail)
    (value,) = values
    key = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    if not key.strip() or not key.isascii() or not key.isprintable() or len(key) > NAME_CHARS_MAX:
        wish = f"must be 1 to {NAME_CHARS_MAX} printable ASCII characters"
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-parameter", f"`Idempotency-Key` {wish}.")
    return key
