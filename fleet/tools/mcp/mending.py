"""Results of a tool server, mended as they arrive, before the SDK validates them.

The SDK refuses a result whole because of one tool or one part of it. Here the bad tool or part is
left out and named, and the rest stays.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp import types as mcp_types
from mcp.shared.message import SessionMessage
from pydantic import TypeAdapter, ValidationError

from fleet.formats.terminal_text import sanitize
from fleet.tools.mcp.names import LEFT_OUT
from fleet.tools.mcp.schema import BadSchema, arguments_schema

#: Newest requests that may still be answered; the answers of older ones stay as they are.
PENDING_MAX = 10_000
NAME_CHARS_MAX = 128

#: A lost connection, and a request that took too long. Many servers use the first for any error.
_OF_SDK = frozenset({mcp_types.CONNECTION_CLOSED, mcp_types.REQUEST_TIMEOUT})
_HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
#: Fields of a result that are no content.
_ABOUT = frozenset({"_meta", "content", "structuredContent", "isError", "resultType", "ttlMs"}) | {
    "cacheScope"
}
_PART: TypeAdapter[Any] = TypeAdapter(mcp_types.ContentBlock)

#: Called with a tool's name and the reason why it is left out.
Report = Callable[[str, str], None]


class Pending:
    """The methods of requests whose answers have not come yet."""

    def __init__(self, report: Report) -> None:
        self._methods: dict[Any, str] = {}
        self._report = report

    def sent(self, message: Any) -> None:
        """Record a request."""
        if isinstance(message, mcp_types.JSONRPCRequest):
            self._methods[message.id] = message.method
            if len(self._methods) > PENDING_MAX:
                del self._methods[next(iter(self._methods))]

    def mended(self, message: Any) -> Any:
        """The message, with its result as the protocol wants it."""
        if isinstance(message, mcp_types.JSONRPCError):
            self._methods.pop(message.id, None)
            return _told_apart(message)
        if not isinstance(message, mcp_types.JSONRPCResponse):
            return message
        match self._methods.pop(message.id, ""):
            case "tools/list":
                result = mended_list(message.result, self._report)
            case "tools/call":
                result = mended_result(message.result)
            case _:
                return message
        return message.model_copy(update={"result": result})


def _told_apart(message: mcp_types.JSONRPCError) -> mcp_types.JSONRPCError:
    """A server's error without the codes by which the SDK tells its own."""
    error = message.error
    if error.code not in _OF_SDK:
        return message
    words = f"{error.message} (its code: {error.code})"
    told = error.model_copy(update={"code": mcp_types.INTERNAL_ERROR, "message": words})
    return message.model_copy(update={"error": told})


class Sent(ObjectSendStream[SessionMessage]):
    """The messages to a server, recorded."""

    def __init__(self, stream: Any, pending: Pending) -> None:
        self._stream, self._pending = stream, pending

    async def send(self, item: SessionMessage) -> None:
        """Send a message."""
        self._pending.sent(item.message)
        await self._stream.send(item)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


class Received(ObjectReceiveStream[SessionMessage | Exception]):
    """The messages of a server, mended."""

    def __init__(self, stream: Any, pending: Pending) -> None:
        self._stream, self._pending = stream, pending

    async def receive(self) -> SessionMessage | Exception:
        """The next message."""
        item: SessionMessage | Exception = await self._stream.receive()
        if isinstance(item, SessionMessage):
            item.message = self._pending.mended(item.message)
        return item

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


def mended_list(result: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """A page of tools without those that cannot be used, each reported."""
    tools = result.get("tools")
    found = []
    for place, raw in enumerate(tools if isinstance(tools, list) else []):
        name = raw.get("name") if isinstance(raw, Mapping) else None
        if not isinstance(name, str) or not name:
            report(f"number {place + 1} of its list", "it has no name")
            continue
        try:
            found.append(_tool(raw, name))
        except BadSchema as error:
            report(name[:NAME_CHARS_MAX], f"its schema {error}")
        except ValidationError:
            report(name[:NAME_CHARS_MAX], "the protocol does not allow it")
    page = {**result, "tools": found}
    if not isinstance(page.get("nextCursor"), str):
        page.pop("nextCursor", None)
    return page


def _tool(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One tool; what is odd beside its name and its schema is left out."""
    needed: dict[str, Any] = {"name": name, "inputSchema": arguments_schema(raw.get("inputSchema"))}
    for key in ("title", "description"):
        if isinstance(raw.get(key), str):
            needed[key] = raw[key]
    if isinstance(hints := raw.get("annotations"), Mapping):
        annotations = {key: hints[key] for key in _HINTS if isinstance(hints.get(key), bool)}
        if isinstance(hints.get("title"), str):
            annotations["title"] = hints["title"]
        needed["annotations"] = annotations
    whole = {**raw, **needed}
    if not isinstance(hints, Mapping):
        whole.pop("annotations", None)
    try:
        mcp_types.Tool.model_validate(whole, by_name=False)
    except ValidationError:
        mcp_types.Tool.model_validate(needed, by_name=False)
        return needed
    return whole


def mended_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """A call's result, with a note in place of each part that the protocol does not know."""
    mended = dict(result)
    content, structured = mended.get("content"), mended.pop("structuredContent", None)
    parts = [content] if isinstance(content, str | Mapping) else content
    blocks = [_block(part) for part in parts] if isinstance(parts, list) else []
    if isinstance(structured, Mapping):
        mended["structuredContent"] = structured
    elif structured is not None:
        blocks.append(_text(json.dumps(structured, ensure_ascii=False)))
    elif not isinstance(parts, list):
        blocks += _other_fields(result)
    mended["content"] = blocks
    if not isinstance(mended.get("isError", False), bool):
        mended["isError"] = str(mended["isError"]).lower() in ("true", "1")
    return mended


def _other_fields(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Notes on a result without content, with the fields that it has instead."""
    yield _note("a result without content")
    if others := {key: value for key, value in result.items() if key not in _ABOUT}:
        yield _text(json.dumps(others, ensure_ascii=False))


def _block(part: Any) -> Any:
    if isinstance(part, str):
        return _text(part)
    try:
        _PART.validate_python(part, by_name=False)
    except ValidationError:
        kind = part.get("type") if isinstance(part, Mapping) else None
        name = sanitize(kind)[:NAME_CHARS_MAX] if isinstance(kind, str) and kind else "no type"
        return _note(f"a part, {name}: not shown")
    return part


def _note(words: str) -> dict[str, Any]:
    return _text(f"[{words}]") | {"_meta": {LEFT_OUT: True}}


def _text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}
