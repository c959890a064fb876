"""Tools of servers of the Model Context Protocol.

One event loop serves all servers of a process, in a thread that starts with the first server, after
the fork. A connection is kept over the turns: starting a program takes seconds. A turn's time limit
interrupts its wait for that thread.
"""

import asyncio
import json
import os
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from threading import Thread
from typing import TYPE_CHECKING, Any

from fleet.config.tools import ToolsConfig as Terms
from fleet.formats.terminal_text import sanitize, sanitize_value
from fleet.ledger import Failure, FailureStage
from fleet.locks import OperationClassifier
from fleet.tools.functions import Spec, ToolError
from fleet.tools.mcp.errors import ToolServerError
from fleet.tools.mcp.names import LEFT_OUT, provider_names
from fleet.turn.turn import Deadline, Turn, TurnFailed

if TYPE_CHECKING:
    from fleet.tools.mcp.server import ToolServer

#: Time beyond a call's timeout: to detect a hanging server, or to restart it.
CALL_MARGIN_S = 10.0
#: The soft limit interrupts the wait for a server; a missing interrupt is noticed after this.
BACKSTOP_S = 5.0
DESCRIPTION_MAX = 8192
#: A reason may hold a server's own words.
REASON_MAX = 500


class ServerToolbox:
    """The tools of one server, for one turn."""

    def __init__(self, turn: Turn, name: str, terms: Terms) -> None:
        """Request the server's tools; `ready` waits for them."""
        self._turn, self._name, self._terms = turn, name, terms
        self._listing = _servers(os.getpid()).start(_listed(name, terms))
        self._specs: Sequence[Spec] = ()

    def ready(self) -> None:
        """Return once there are tools. Raises TurnFailed where the server is not available."""
        try:
            tools = _wait(self._listing, self._turn.deadline + BACKSTOP_S)
        except TimeoutError as error:
            raise Deadline from error
        except ToolServerError as error:
            reason = str(error)[:REASON_MAX]
            raise TurnFailed(
                Failure(stage=FailureStage.TOOL, reason=reason, retryable=True, kind="ToolServer")
            ) from error
        self._specs = _specs(tools)

    @property
    def specs(self) -> Sequence[Spec]:
        """The tools, by name, so that a turn that runs again sends its model the same list."""
        return self._specs

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The server's answer. Raises ToolError with the server's words for an error."""
        timeout_s = max(0.1, min(self._terms.timeout_s, self._turn.remaining_s))
        reads = OperationClassifier(self._terms.classes).classify(name) == "read"
        result_of = _servers(os.getpid()).start(
            _called(self._name, self._terms, name, dict(arguments), timeout_s, reads=reads)
        )
        try:
            result = _wait(result_of, time.monotonic() + timeout_s + CALL_MARGIN_S)
        except TimeoutError as error:
            raise ToolError(f"{name} took longer than {timeout_s:g} s") from error
        except ToolServerError as error:
            data = "" if error.data is None else f" {json.dumps(error.data, ensure_ascii=False)}"
            raise ToolError(f"{error}{data}") from error
        text = _result_text(result)
        if result.is_error:
            raise ToolError(text)
        return text


class _Servers:
    """The event loop of this process's servers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, name="tool servers", daemon=True).start()

    def start(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)


@cache
def _servers(_pid: int) -> _Servers:
    """The loop of one process: no thread survives a fork."""
    return _Servers()


#: Only the loop's thread uses this.
_known: "dict[str, ToolServer]" = {}


def _server(name: str, terms: Terms) -> "ToolServer":
    if name not in _known:
        # In the loop's thread: the import takes a second, and a time limit would cut it short.
        from fleet.tools.mcp.server import ToolServer

        _known[name] = ToolServer(name, terms)
    return _known[name]


async def _listed(name: str, terms: Terms) -> Any:
    return await _server(name, terms).list_tools()


async def _called(
    name: str, terms: Terms, tool: str, arguments: dict[str, Any], timeout_s: float, *, reads: bool
) -> Any:
    server = _server(name, terms)
    return await server.call_tool(tool, arguments, timeout_s=timeout_s, reads=reads)


def _wait(call: "Future[Any]", until: float) -> Any:
    """The call's result. Raises TimeoutError at `until` (monotonic), and cancels the call."""
    try:
        return call.result(max(0.0, until - time.monotonic()))
    finally:
        call.cancel()


def _specs(tools: Iterable[Any]) -> list[Spec]:
    known = {str(tool.name): tool for tool in tools}
    return [_spec(name, known[own]) for name, own in provider_names(known).items()]


def _spec(name: str, tool: Any) -> Spec:
    return Spec(
        name=name,
        description=sanitize(tool.description or tool.title or "")[:DESCRIPTION_MAX],
        parameters={"type": "object", "properties": {}, **tool.input_schema},
        called=tool.name,
    )


def _result_text(result: Any) -> str:
    """A result as text for a model; a note stands for each part that is not text.

    Structured content becomes JSON; beside text it repeats the text, and is left out.
    """
    texts = list(_texts(result.content))
    said = (block for block in result.content if block.type == "text")
    if result.structured_content is not None and all(LEFT_OUT in (one.meta or {}) for one in said):
        structured = sanitize_value(result.structured_content)
        texts.append(json.dumps(structured, ensure_ascii=False))
    return "\n".join(texts)


def _texts(blocks: list[Any]) -> Iterator[str]:
    for block in blocks:
        match block.type:
            case "text":
                yield block.text
            case "image" | "audio":
                yield f"[{block.type}, {block.mime_type}, {_size(block.data)} bytes: not shown]"
            case "resource_link":
                yield f"[resource {block.uri}: {block.title or block.name}]"
            case "resource":
                yield _resource(block.resource)
            case other:
                yield f"[{other}: not shown]"


def _resource(resource: Any) -> str:
    text = getattr(resource, "text", None)
    if text is not None:
        return f"[resource {resource.uri}]\n{text}"
    kind = resource.mime_type or "of no type"
    return f"[resource {resource.uri}, {kind}, {_size(resource.blob)} bytes: not shown]"


def _size(encoded: str) -> int:
    """Bytes of base64 content, without decoding it."""
    return len(encoded) * 3 // 4 - encoded[-2:].count("=")
