"""The OpenAPI description of `POST /mcp`."""

from fleet.api.mcp import HOPS_HEADER, SESSION_HEADER, TURN_HEADER
from fleet.api.openapi.parts import Json, json_answer, parameter, problems

_TEXT: Json = {"type": "string"}
_MESSAGE: Json = {
    "type": "object",
    "properties": {"jsonrpc": {"const": "2.0"}},
    "required": ["jsonrpc"],
}
_ANSWER: Json = {
    **_MESSAGE,
    "properties": {
        **_MESSAGE["properties"],
        "id": {"type": ["string", "integer", "null"]},
        "result": {"type": "object"},
        "error": {
            "type": "object",
            "properties": {
                "code": {
                    "description": "-32002: the session or the turn is busy; ask again after "
                    "`data.retry_after_s`. -32603: the store of the locks is away. -32800: the "
                    "client cancelled the call. Others are the tool server's own, with its `data`.",
                    "type": "integer",
                },
                "message": {"type": "string"},
                "data": {},
            },
            "required": ["code", "message"],
        },
    },
    "oneOf": [{"required": ["result"]}, {"required": ["error"]}],
}


def _call() -> Json:
    refused = problems(400, 401, 403, 406, 408, 413, 415, 429, 503)
    answer = {"application/json": {"schema": _ANSWER}}
    refused["400"]["content"] |= answer
    return {
        "operationId": "mcp",
        "summary": "A message of the Model Context Protocol (Streamable HTTP, without sessions).",
        "description": "The fleet's own tools, and those of configured tool servers. A tool that "
        "refuses says so in its result, with `isError`.",
        "parameters": [
            parameter(SESSION_HEADER, _TEXT, "The session that a call is of.", place="header"),
            parameter(TURN_HEADER, _TEXT, "The turn of the session.", place="header"),
            parameter(
                HOPS_HEADER,
                _TEXT,
                "The hops of the event that the caller works on, as a turn's program is told them.",
                place="header",
            ),
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _MESSAGE}}},
        "responses": {
            "200": json_answer("The answer to a request.", _ANSWER),
            "202": {"description": "A notification or an answer was taken."},
            "404": json_answer("There is no such method.", _ANSWER),
            **refused,
        },
    }


MCP_PATHS: Json = {"/mcp": {"post": _call()}}
