"""The OpenAPI 3.1 document of the API. A test compares it with the routes."""

from functools import cache

from fleet.api.bus.cursor import Resync
from fleet.api.openapi.again import AGAIN_PATHS, AGAIN_SCHEMAS
from fleet.api.openapi.agents import AGENT_PATHS
from fleet.api.openapi.alerts import ALERT_PATHS, ALERT_SCHEMAS
from fleet.api.openapi.callbacks import CALLBACK_PATHS
from fleet.api.openapi.mcp import MCP_PATHS
from fleet.api.openapi.operations import OPERATION_PATHS
from fleet.api.openapi.overview import OVERVIEW_PATHS
from fleet.api.openapi.parts import DISPATCH_ID, Json
from fleet.api.openapi.parts import FLAG as _FLAG
from fleet.api.openapi.parts import json_answer as _json
from fleet.api.openapi.parts import parameter as _parameter
from fleet.api.openapi.parts import problems as _problems
from fleet.api.openapi.parts import ref as _ref
from fleet.api.openapi.schemas import SCHEMAS
from fleet.api.openapi.tags import TAGS, tagged
from fleet.api.openapi.tokens import TOKEN_PATHS
from fleet.api.request.small_body import REASON_CHARS_MAX
from fleet.api.routes.events import BATCH_MAX, BATCH_MEDIA_TYPE
from fleet.ledger import State, bus
from fleet.ledger.operations import BY_CHARS_MAX
from fleet.ledger.search import WORDS_CHARS_MAX
from fleet.ledger.views import LIST_MAX
from fleet.version import VERSION
from routing.event import SOURCE_DEFAULT


@cache
def document() -> Json:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fleet",
            "version": VERSION,
            "summary": "Events in; dispatches, outcomes and the bus out.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": TAGS,
        "paths": tagged(_paths()),
        "security": [{}, {"token": []}],
        "components": {
            "schemas": SCHEMAS | ALERT_SCHEMAS | AGAIN_SCHEMAS,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Needed once there is a token: `fleet token create` makes one.",
                }
            },
        },
    }


def _paths() -> Json:
    return {
        "/events": {"post": _send()},
        "/events/{event_id}": {"get": _get_event()},
        "/dispatches": {"get": _find()},
        "/dispatches/{dispatch_id}": {"get": _get()},
        **{
            f"/dispatches/{{dispatch_id}}/{verb}": {"post": _operate(verb, summary)}
            for verb, summary in _VERBS.items()
        },
        "/dispatches/{dispatch_id}/stream": {"get": _listen()},
        "/tickets": {"post": _ticket()},
        **AGAIN_PATHS,
        **AGENT_PATHS,
        **ALERT_PATHS,
        **MCP_PATHS,
        **CALLBACK_PATHS,
        **OPERATION_PATHS,
        **OVERVIEW_PATHS,
        **TOKEN_PATHS,
        "/bus": {"get": _bus()},
        "/ws": {"get": _ws()},
        "/health": {"get": _health()},
        "/metrics": {"get": _plain("metrics", "Figures for Prometheus.", "text/plain")},
        "/livez": {"get": _probe("livez", "Does the process answer?", ())},
        "/readyz": {"get": _probe("readyz", "Would an event be accepted and kept?", (503,))},
        "/openapi.json": {"get": _plain("openapi", "This document.", "application/json")},
        "/": {"get": _plain("console", "The console, a page for people.", "text/html")},
        "/console/{file}": {"get": _file("console_file", "A script or style of the console.")},
        "/docs": {"get": _plain("explorer", "This document, to read and to try.", "text/html")},
        "/docs/{file}": {"get": _file("explorer_file", "A script or style of that page.")},
    }


#: Refusals of every operation that may need a token.
_CALLER = (401, 403, 429)

_VERBS = {
    "cancel": "Cancel: at once when it waits (200), at its next step when it runs (202).",
    "retry": "Try again, in its old place: a retrying one now, a dead one as a new generation.",
    "approve": "Approve a parked dispatch, once: its chain goes on.",
    "reject": "Reject a parked dispatch, once: its chain ends.",
}


def _send() -> Json:
    event = {"oneOf": [_ref("Shorthand"), _ref("CloudEvent")]}
    # An invalid item is refused by itself, at its place in the answer.
    batch = {"type": "array", "minItems": 1, "maxItems": BATCH_MAX, "items": {"anyOf": [event, {}]}}
    answers = {"type": "array", "items": {"oneOf": [_ref("Accepted"), _ref("Rejected")]}}
    return {
        "operationId": "send",
        "summary": "Send an event, or a batch of which each is accepted or refused by itself.",
        "description": (
            "The same `source` and `id` twice, by one token, is one event: it gets the first "
            "answer. With other content it is refused (409). The body may also be of the types "
            f"`application/cloudevents+json` and `{BATCH_MEDIA_TYPE}`. A CloudEvent in binary "
            "mode, with `ce-` headers and its data as JSON or text/plain, is the same event, too."
        ),
        "parameters": [
            _parameter(
                "Idempotency-Key",
                {"type": "string", "minLength": 1, "maxLength": 256},
                "The id of an event that has none; in a batch, a dot and its place are added.",
                place="header",
            ),
            _parameter(
                "traceparent",
                {"type": "string"},
                "The trace of the events that name none (W3C Trace Context).",
                place="header",
            ),
        ],
        "requestBody": {
            "required": True,
            # One media type: with several, generated clients look for the type of a list, and fail.
            "content": {"application/json": {"schema": {"oneOf": [event, batch]}}},
        },
        "responses": {
            "202": _json("In the ledger: it will end.", {"oneOf": [_ref("Accepted"), answers]}),
            **_problems(400, *_CALLER, 404, 408, 409, 413, 415, 503),
        },
    }


def _get_event() -> Json:
    place = {"name": "event_id", "in": "path", "required": True}
    return {
        "operationId": "get_event",
        "summary": "One event: the parent of its dispatches. It ends when the last of them does.",
        "parameters": [
            {**place, "schema": {"type": "string", "minLength": 1}},
            _parameter(
                "source",
                {"type": "string", "default": SOURCE_DEFAULT},
                "Its `source`, where the sender named one: it and the id name the event together.",
            ),
            _parameter(
                "sent_by",
                {"type": "string"},
                "Its sender, where several have sent such an event and the caller has not.",
            ),
            _parameter("content", _FLAG, "With the event itself and the members' answers."),
        ],
        "responses": {
            "200": _json("The event.", _ref("Event")),
            **_problems(400, *_CALLER, 404, 409, 503),
        },
    }


def _find() -> Json:
    states = {"type": "string", "enum": [str(state) for state in State]}
    limit = {"type": "integer", "minimum": 1, "maximum": LIST_MAX, "default": 20}
    words = {"type": "string", "maxLength": WORDS_CHARS_MAX}
    return {
        "operationId": "find_dispatches",
        "summary": "A page of the ledger, newest first.",
        "parameters": [
            _parameter("agent", {"type": "string"}, "Only this agent's."),
            _parameter("state", {"type": "array", "items": states}, "Only in these states."),
            _parameter("limit", limit, "Most dispatches on the page."),
            _parameter("cursor", {"type": "string"}, "The `cursor` of the page before."),
            _parameter("words", words, "In an id, a session, a source; with `content`, a text."),
            _parameter("session", words, "Only of this session."),
            _parameter("source", words, "Only of events from this source."),
            _parameter("model", words, "Only where the model's name has this in it."),
            _parameter("content", _FLAG, "With the first line of each event's text."),
        ],
        "responses": {"200": _json("The page.", _ref("Page")), **_problems(400, *_CALLER, 503)},
    }


def _get() -> Json:
    return {
        "operationId": "get_dispatch",
        "summary": "One dispatch with its steps, timings and why it waits.",
        "parameters": [
            DISPATCH_ID,
            _parameter("content", _FLAG, "With the event's text and the answer."),
        ],
        "responses": {
            "200": _json("The dispatch.", _ref("Dispatch")),
            **_problems(400, *_CALLER, 404, 503),
        },
    }


def _operate(verb: str, summary: str) -> Json:
    operation: Json = {
        "operationId": f"{verb}_dispatch",
        "summary": summary,
        "parameters": [DISPATCH_ID],
        "responses": {
            "200": _json("Done.", _ref("Moved")),
            **_problems(400, *_CALLER, 404, 409, 503),
        },
    }
    if verb != "retry":
        fields: Json = {"reason": {"type": "string", "maxLength": REASON_CHARS_MAX}}
        if verb != "cancel":
            fields["by"] = {"type": "string", "minLength": 1, "maxLength": BY_CHARS_MAX}
        schema: Json = {"type": "object", "properties": fields}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        if verb == "reject":
            fields["reason"]["minLength"] = 1
            schema["required"] = ["reason"]
            operation["requestBody"]["required"] = True
        operation["responses"] |= _problems(408, 413, 415)
    if verb == "cancel":
        operation["parameters"].append(
            _parameter("now", _FLAG, "End a running turn at once, in the middle of a step.")
        )
        operation["responses"]["202"] = _json("It stops at its next step.", _ref("Moved"))
    return operation


def _ticket() -> Json:
    ticket: Json = {
        "type": "object",
        "properties": {"ticket": {"type": "string"}, "expires_in_s": {"type": "integer"}},
        "required": ["ticket", "expires_in_s"],
    }
    return {
        "operationId": "issue_ticket",
        "summary": "A ticket: stands for the caller's token once, in the URL of a stream.",
        "description": "For a browser's WebSocket and EventSource, which can send no header.",
        "responses": {"201": _json("Good for one stream.", ticket), **_problems(*_CALLER, 503)},
    }


def _listen() -> Json:
    stream = {
        "description": "`token` (`attempt`, `step`, `offset`, `text`): append the text. "
        "`reset` (`attempt`, `step`, `reason`: retry or fallback): forget what you have of this "
        "step and of later ones. `resync` (`reason`: trimmed or invalid_last_event_id): forget "
        "everything; what is still kept follows. `outcome`: the dispatch as it ended, with its "
        "answer; then the stream ends. A comment comes at least each 15 s.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
    resume = "Go on after this place: the `id` of the last `token` or `reset`."
    return {
        "operationId": "listen",
        "summary": "What a turn says while it runs, as server-sent events, then its outcome.",
        "description": "Only an agent with `stream = true` says anything before its outcome.",
        "parameters": [
            DISPATCH_ID,
            _parameter("Last-Event-ID", {"type": "string"}, resume, place="header"),
            _parameter("last-event-id", {"type": "string"}, resume),
        ],
        "responses": {"200": stream, **_problems(*_CALLER, 404, 503)},
    }


def _bus() -> Json:
    event = {"type": "string", "contentMediaType": "application/json"}
    stream = {
        "description": "Each event's `data` is one BusEvent, its `id` is `<epoch>.<stream id>`. "
        f"`resync_required` with a `reason` ({', '.join(Resync)}) says: fetch the state again; "
        "what follows comes after its `id`. A comment comes at least each 15 s.",
        "content": {"text/event-stream": {"schema": {**event, "contentSchema": _ref("BusEvent")}}},
    }
    header = _parameter("Last-Event-ID", {"type": "string"}, _RESUME, place="header")
    return {
        "operationId": "follow_bus",
        "summary": "Every state change, live, as server-sent events.",
        "parameters": [header, *_following()],
        "responses": {"200": stream, **_problems(400, *_CALLER, 503)},
    }


def _ws() -> Json:
    return {
        "operationId": "follow_bus_ws",
        "summary": "Every state change, live, as WebSocket text messages of one BusEvent each.",
        "description": "Closed with 1012 when the API ends, 1013 when the client reads nothing, "
        "1008 when its token was revoked.",
        "parameters": _following(),
        "responses": {"101": {"description": "Follows the bus."}, **_problems(400, *_CALLER, 503)},
    }


_RESUME = "Go on after this place: an event's SSE id or its `id`; `0-0` is the beginning."


def _following() -> list[Json]:
    types = {"type": "array", "items": {"type": "string", "enum": list(bus.TYPES)}}
    some = {"type": "array", "items": {"type": "string"}}
    return [
        _parameter("last-event-id", {"type": "string"}, _RESUME),
        _parameter("ticket", {"type": "string"}, "In the place of a token: see `POST /tickets`."),
        _parameter("agent", some, "Only these agents'."),
        _parameter("type", types, "Only these types; `resync_required` comes always."),
        _parameter("session", some, "Only these sessions'."),
    ]


def _health() -> Json:
    return {
        "operationId": "health",
        "summary": "How the fleet is, from live values.",
        "responses": {
            "200": _json("It works, perhaps degraded.", _ref("Health")),
            "503": _json("It is down.", _ref("Health")),
            **_problems(400, *_CALLER),
        },
    }


def _probe(name: str, summary: str, refusals: tuple[int, ...]) -> Json:
    yes = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": _json("Yes.", yes), **_problems(403, *refusals)},
    }


def _plain(name: str, summary: str, media_type: str) -> Json:
    answer = {"description": summary, "content": {media_type: {}}}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": answer, **_problems(403)},
    }


def _file(operation_id: str, summary: str) -> Json:
    name = {"type": "string", "examples": ["main.js"]}
    return {
        "operationId": operation_id,
        "summary": summary,
        "parameters": [{"name": "file", "in": "path", "required": True, "schema": name}],
        "responses": {
            "200": {
                "description": "The file.",
                "content": {"text/javascript": {}, "text/css": {}, "image/svg+xml": {}},
            },
            "304": {"description": "Unchanged since the `ETag` in `If-None-Match`."},
            **_problems(403, 404),
        },
    }
