"""`POST /events`: the intake over HTTP.

Events that arrive during a round trip are accepted together in the next one. An event never waits
for a group to fill.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from fleet.api.auth.access import Access, caller_of
from fleet.api.request.body import ClientGone, check_media_type, parse_json, read_body
from fleet.api.request.bounded_threads import BoundedThreads, ThreadsBusy
from fleet.api.request.problems import Problem, as_problem
from fleet.intake.intake import LOCAL, Answer, Intake, Sender
from fleet.ledger import Accepted
from routing.event import EVENT_BYTES_MAX, NAME_CHARS_MAX

MEDIA_TYPE = "application/cloudevents+json"  #: one event, never a batch
BATCH_MEDIA_TYPE = "application/cloudevents-batch+json"
#: Events in one request. Each may reach every agent, so their number is bounded too.
BATCH_MAX = 1000

#: One for the groups; a batch, which is a group of its own, does not wait for them.
_THREADS = 2
#: A group is one round trip; a larger group only makes its first sender wait.
_GROUP_MAX = 64
#: More requests than this wait only while the store fails; they are refused.
_WAITING_MAX = 1024

_JSON = [(b"content-type", b"application/json")]

Waiting = tuple[object, Sender, asyncio.Future[Answer]]


class GroupedIntake:
    """The intake, shared by all requests of this process."""

    def __init__(self, intake: Callable[[], Intake]) -> None:
        self._intake = intake
        self._threads = BoundedThreads("intake", _THREADS, _WAITING_MAX)
        self._waiting: deque[Waiting] = deque()
        self._serving: asyncio.Task[None] | None = None

    async def accept(self, raw: object, sender: Sender = LOCAL) -> Accepted:
        """Accept one event, as `Intake.accept` does. Raises ThreadsBusy when too many wait."""
        if len(self._waiting) >= _WAITING_MAX:
            raise ThreadsBusy("Too many events wait to be accepted already: send it again.")
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((raw, sender, answered))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        answer = await answered
        if isinstance(answer, Accepted):
            return answer
        raise answer

    async def accept_batch(self, raws: Sequence[object], senders: Sequence[Sender]) -> list[Answer]:
        """Accept each event separately, as `Intake.accept_batch` does."""
        return await self._threads.run(lambda: self._intake().accept_batch(raws, senders))

    async def _serve(self) -> None:
        """Accept one group after the other: two at once would only contend for the GIL."""
        while self._waiting:
            size = min(len(self._waiting), _GROUP_MAX)
            await self._serve_group([self._waiting.popleft() for _ in range(size)])
        # No await since the last check: no event can be left behind without a task.
        self._serving = None

    async def _serve_group(self, group: list[Waiting]) -> None:
        raws, senders, waiting = zip(*group, strict=True)
        try:
            answers = await self.accept_batch(raws, senders)
        except Exception as error:  # noqa: BLE001 - each request gets it
            for request in waiting:
                if not request.done():
                    request.set_exception(error)
            return
        for request, answer in zip(waiting, answers, strict=True):
            if not request.done():  # done: the client has disconnected, its event is accepted
                request.set_result(answer)


class EventsRoute:
    """The ASGI application behind `POST /events`."""

    def __init__(self, intake: Callable[[], Intake], access: Access) -> None:
        self._grouped = GroupedIntake(intake)
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises errors known to `as_problem`."""
        media_type = check_media_type(scope)
        caller = caller_of(scope)
        limit = min(EVENT_BYTES_MAX, caller.body_bytes or EVENT_BYTES_MAX)
        try:
            body = await read_body(scope, receive, limit)
        except ClientGone:
            return
        value = _with_trace(parse_json(body), Headers(scope=scope).get("traceparent"))
        key = _idempotency_key(scope)
        may = caller.rights.need_send if caller.token else None
        sender = Sender(sent_by=caller.sent_by, may=may)
        if media_type == BATCH_MEDIA_TYPE or (isinstance(value, list) and media_type != MEDIA_TYPE):
            events = _batch(value, key)
            self._access.charge_batch(caller, len(events))
            answers = await self._grouped.accept_batch(events, [sender] * len(events))
            answer: Any = [_to_wire(outcome) for outcome in answers]
        else:
            answer = (await self._grouped.accept(_with_id(value, key), sender)).to_wire()
        text = json.dumps(answer).encode()
        headers = [*_JSON, (b"content-length", str(len(text)).encode())]
        await send(
            {"type": "http.response.start", "status": HTTPStatus.ACCEPTED, "headers": headers}
        )
        await send({"type": "http.response.body", "body": text})


def _batch(value: object, key: str | None) -> list[object]:
    if not isinstance(value, list) or not value:
        detail = "A batch must be a JSON array of at least one event."
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid-event", detail)
    if len(value) > BATCH_MAX:
        detail = f"A batch must not hold more than {BATCH_MAX} events: split it."
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", detail)
    numbered = partial("{}.{}".format, key) if key else lambda _: None
    return [_with_id(raw, numbered(place)) for place, raw in enumerate(value)]


def _to_wire(answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Accepted):
        return answer.to_wire()
    return {"error": as_problem(answer).to_wire()}


def _idempotency_key(scope: Scope) -> str | None:
    """The `Idempotency-Key` header, with or without the quotes of its draft standard."""
    value = Headers(scope=scope).get("idempotency-key")
    if value is None:
        return None
    key = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    if not key.strip() or not key.isascii() or not key.isprintable() or len(key) > NAME_CHARS_MAX:
        requirement = f"must be 1 to {NAME_CHARS_MAX} printable ASCII characters"
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-parameter", f"`Idempotency-Key` {requirement}.")
    return key


def _with_trace(value: object, traceparent: str | None) -> object:
    """Give the request's trace to its events, except where an event names its own."""
    if traceparent is None:
        return value
    if isinstance(value, list):
        return [raw if isinstance(raw, list) else _with_trace(raw, traceparent) for raw in value]
    if not isinstance(value, Mapping) or value.get("traceparent") is not None:
        return value
    return {**value, "traceparent": traceparent}


def _with_id(raw: object, key: str | None) -> object:
    if key is None or not isinstance(raw, Mapping) or raw.get("id") is not None:
        return raw
    return {**raw, "id": key}
