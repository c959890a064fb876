"""`POST /callbacks/{dispatch_id}`: the answer of a service that was asked for one.

Whoever calls is known by the agent's secret, so no token is needed.
"""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.backend import Backend
from fleet.api.request.body import ClientGone, check_encoding, is_json, parse_json, read_body
from fleet.api.request.problems import Problem
from fleet.config.agents import AgentConfig
from fleet.formats.webhook_signature import BadSignature
from fleet.ledger.operations import Unknown
from fleet.turn import callbacks


class Callbacks:
    """The endpoint."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def take(self, request: Request) -> Response:
        """Keep the answer for its turn, once: 202 also for the same answer again."""
        dispatch_id = str(request.path_params["dispatch_id"])
        agent = await self._agent(dispatch_id)
        headers = request.headers
        check_encoding(headers)
        try:
            body = await read_body(request.scope, request.receive, agent.max_output_bytes)
        except ClientGone:
            return Response(status_code=int(HTTPStatus.BAD_REQUEST))

        def keep() -> bool:
            assert agent.secret is not None  # noqa: S101 - the configuration was checked
            callbacks.check(agent.secret.get_secret_value(), dispatch_id, headers, body)
            kind, text = _checked(headers, body)
            return callbacks.store(self._backend.store(), dispatch_id, kind, text)

        try:
            kept = await self._backend.reads.run(keep)
        except BadSignature as error:
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "bad-signature",
                str(error),
                headers={"WWW-Authenticate": "webhook-signature"},
            ) from error
        return JSONResponse(
            {"dispatch_id": dispatch_id, "duplicate": not kept}, int(HTTPStatus.ACCEPTED)
        )

    async def _agent(self, dispatch_id: str) -> AgentConfig:
        """The agent of the dispatch. Raises Unknown where it is not asked for callbacks."""
        backend = self._backend
        name = await backend.reads.run(lambda: callbacks.agent_of(backend.store(), dispatch_id))
        agent = backend.settings.agents.get(name or "")
        if agent is None or not agent.callback:
            raise Unknown("There is no dispatch of this id whose agent takes callbacks.")
        return agent


def _checked(headers: Headers, body: bytes) -> tuple[str, str]:
    """The media type and the text. Raises Problem 400 for what it is not."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if is_json(kind):
        parse_json(body)
    try:
        return kind, body.decode()
    except UnicodeDecodeError as error:
        detail = f"The body is not UTF-8 (byte {error.start})."
        raise Problem(HTTPStatus.BAD_REQUEST, "not-text", detail) from None
