"""`POST /callbacks/{dispatch_id}`: the late answer of a service.

The agent's secret authenticates the service, so no token is needed.
"""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.request.body import ClientGone, check_encoding, is_json, parse_json, read_body
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.problems import Problem
from fleet.config.agents import AgentConfig
from fleet.formats.webhook_signature import BadSignature
from fleet.ledger.operations import Unknown
from fleet.runtime import Runtime
from fleet.turn import callbacks


class Callbacks:
    """The endpoint."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads

    async def accept(self, request: Request) -> Response:
        """Store the answer for its turn, once; a repeated answer is 202 too."""
        dispatch_id = str(request.path_params["dispatch_id"])
        agent = await self._agent(dispatch_id)
        headers = request.headers
        check_encoding(headers)
        try:
            body = await read_body(request.scope, request.receive, agent.max_output_bytes)
        except ClientGone:
            return Response(status_code=int(HTTPStatus.BAD_REQUEST))

        def store_answer() -> bool:
            assert agent.secret is not None  # noqa: S101 - the configuration was checked
            callbacks.check(agent.secret.get_secret_value(), dispatch_id, headers, body)
            kind, text = _checked(headers, body)
            return callbacks.store(self._runtime.store, dispatch_id, kind, text)

        try:
            stored = await self._reads.run(store_answer)
        except BadSignature as error:
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "bad-signature",
                str(error),
                headers={"WWW-Authenticate": "webhook-signature"},
            ) from error
        return JSONResponse(
            {"dispatch_id": dispatch_id, "duplicate": not stored}, int(HTTPStatus.ACCEPTED)
        )

    async def _agent(self, dispatch_id: str) -> AgentConfig:
        """The agent of the dispatch. Raises Unknown where the agent takes no callbacks."""
        runtime = self._runtime
        name = await self._reads.run(lambda: callbacks.agent_of(runtime.store, dispatch_id))
        agent = runtime.settings.agents.get(name or "")
        if agent is None or not agent.callback:
            raise Unknown("There is no dispatch of this id whose agent takes callbacks.")
        return agent


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
