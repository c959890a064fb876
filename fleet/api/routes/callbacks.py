"""`POST /callbacks/{dispatch_id}`: the late answer of a service.

The agent's secret authenticates the service, so no token is needed.
"""

import logging
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.request.body import (
    ClientGone,
    check_encoding,
    is_json,
    parse_json,
    read_body,
    too_large,
)
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.problems import Problem
from fleet.formats.webhook_signature import BadSignature
from fleet.ledger.operations import Unknown
from fleet.runtime import Runtime
from fleet.turn import callbacks

_NOT_THERE = (
    "There is no dispatch of this id that takes a callback of this signature: check the id, the "
    "agent's secret and the clock."
)

_log = logging.getLogger(__name__)


class Callbacks:
    """The endpoint."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads
        agents = runtime.settings.agents.values()
        #: One for all: whoever knows no secret learns no agent's own limit. 0: none takes any.
        self._limit = max((one.max_output_bytes for one in agents if one.callback), default=0)

    async def accept(self, request: Request) -> Response:
        """Store the answer for its turn, once; a repeated answer is 202 too.

        Without the signature of the dispatch's agent, the answer is the same as for an unknown id.
        """
        dispatch_id = str(request.path_params["dispatch_id"])
        headers = request.headers
        check_encoding(headers)
        if not self._limit:
            raise Unknown(_NOT_THERE)
        try:
            body = await read_body(request.scope, request.receive, self._limit)
        except ClientGone:
            return Response(status_code=int(HTTPStatus.BAD_REQUEST))

        def store_answer() -> bool:
            self._check(dispatch_id, headers, body)
            kind, text = _checked(headers, body)
            return callbacks.store(self._runtime.store, dispatch_id, kind, text)

        stored = await self._reads.run(store_answer)
        return JSONResponse(
            {"dispatch_id": dispatch_id, "duplicate": not stored}, int(HTTPStatus.ACCEPTED)
        )

    def _check(self, dispatch_id: str, headers: Headers, body: bytes) -> None:
        """Raises Unknown without the signature of an agent that takes callbacks; Problem 413."""
        runtime = self._runtime
        name = callbacks.agent_of(runtime.store, dispatch_id) or ""
        agent = runtime.settings.agents.get(name)
        if agent is None or agent.secret is None or not agent.callback:
            raise Unknown(_NOT_THERE)
        try:
            callbacks.check(agent.secret.get_secret_value(), dispatch_id, headers, body)
        except BadSignature as error:
            _log.warning("A callback to %s for %s is refused: %s", name, dispatch_id, error)
            raise Unknown(_NOT_THERE) from error
        if len(body) > agent.max_output_bytes:
            raise too_large(agent.max_output_bytes)


def _checked(headers: Headers, body: bytes) -> tuple[str, str]:
    """The media type and the text of a body. Raises Problem for a body without an answer."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        detail = f"The body is not UTF-8 (byte {error.start})."
        raise Problem(HTTPStatus.BAD_REQUEST, "not-text", detail) from None
    value = parse_json(body) if is_json(kind) else text.strip()
    if isinstance(value, dict):
        given = isinstance(value.get("text"), str) or isinstance(value.get("error"), str)
    else:
        given = isinstance(value, str) and (value != "" or is_json(kind))
    if not given:
        detail = "The callback has neither a `text` nor an `error`: send one of them, as a string."
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "no-answer", detail)
    return kind, text
