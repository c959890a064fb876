"""Dead letters over HTTP: replay those of an agent, of a time, of a reason."""

from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet.api.auth.access import rights_of
from fleet.api.request.bounded_threads import BoundedThreads
from fleet.api.request.problems import Problem
from fleet.api.request.small_body import read_object
from fleet.formats.since import parse_since
from fleet.ledger import dead_letters, operations
from fleet.ledger.dead_letters import BATCH_DEFAULT, BATCH_MAX, Filter
from fleet.runtime import Runtime


class DeadLetters:
    """The endpoint."""

    def __init__(self, runtime: Runtime, reads: BoundedThreads) -> None:
        self._runtime, self._reads = runtime, reads

    async def replay(self, request: Request) -> Response:
        """Replay at most `limit` dead letters; request it again while there are `more`."""
        rights = rights_of(request.scope)
        rights.need_operate()
        body = await read_object(request, "agent", "since", "reason", "limit")
        agent, since, reason = (_text(body, name) for name in ("agent", "since", "reason"))
        if agent:
            rights.need_read(agent)
        limit = body.get("limit", BATCH_DEFAULT)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= BATCH_MAX:
            raise _wrong("limit", f"must be a whole number from 1 to {BATCH_MAX}.")

        def replay() -> dict[str, Any]:
            runtime = self._runtime
            operations.agents_with_work(runtime.store, runtime.settings, agent or None)
            chosen = Filter(
                agent=agent or None,
                since_ms=_since(since, runtime.store.clock.now_ms()),
                reason=reason,
                reads=rights.reads,
            )
            done = dead_letters.replay_some(runtime.ledger, runtime.settings, chosen, limit)
            return done.to_wire()

        return JSONResponse(await self._reads.run(replay))


def _since(text: str, now_ms: float) -> float:
    try:
        return parse_since(text, now_ms) if text else 0.0
    except ValueError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-parameter", f"`since`: {error}") from error


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise _wrong(name, "must be a string.")
    return value


def _wrong(name: str, requirement: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "bad-parameter", f"`{name}` {requirement}")
