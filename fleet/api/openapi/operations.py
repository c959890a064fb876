"""The OpenAPI description of what a command line on another machine needs beside the rest."""

from fleet.api.bus.entries import EXAMINED_MAX
from fleet.api.openapi.parts import Json, json_answer, parameter, problems, ref
from fleet.api.request.small_body import REASON_CHARS_MAX
from fleet.ledger import bus
from routing.event import NAME_CHARS_MAX

_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_NAME: Json = {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX}
_CALLER = (401, 403, 429)


def _object(required: str, **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": required.split()}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _or_null(schema: Json) -> Json:
    return {"oneOf": [schema, {"type": "null"}]}


def _in_path(name: str, description: str) -> Json:
    schema: Json = {"type": "string", "minLength": 1}
    return {**parameter(name, schema, description, place="path"), "required": True}


def _body(schema: Json, *, needed: bool = True) -> Json:
    return {"required": needed, "content": {"application/json": {"schema": schema}}}


def _route() -> Json:
    plan = _object(
        "agents chain reason why stages",
        agents=_list(_TEXT),
        chain=_or_null(_TEXT),
        reason=_TEXT,
        why=_list(_object("agent because", agent=_TEXT, because=_list(_TEXT))),
        stages=_list(_object("name agents quorum", name=_TEXT, agents=_list(_TEXT), quorum=_COUNT)),
    )
    return {
        "operationId": "route",
        "summary": "The agents that an event would reach, and why; nothing is kept.",
        "description": "It needs the scopes that the event would need.",
        "requestBody": _body({"oneOf": [ref("Shorthand"), ref("CloudEvent")]}),
        "responses": {
            "200": json_answer("The plan.", plan),
            **problems(400, *_CALLER, 404, 408, 413, 415, 503),
        },
    }


def _chain() -> Json:
    pair = _object("dispatch_id agent", dispatch_id=_TEXT, agent=_TEXT)
    chain = _object(
        "state reason dispatches",
        state=_TEXT,
        reason=_or_null(_TEXT),
        dispatches=_list(pair),
    )
    return {
        "operationId": "get_chain",
        "summary": "One run through a chain: its state, and its dispatches so far.",
        "parameters": [_in_path("chain_id", "The `chain_id` of the accepted event.")],
        "responses": {
            "200": json_answer("The run.", chain),
            **problems(400, *_CALLER, 404, 503),
        },
    }


def _cancel_waiting() -> Json:
    reason: Json = {
        "type": "object",
        "properties": {"reason": {"type": "string", "maxLength": REASON_CHARS_MAX}},
    }
    done = _object("agent cancelled", agent=_TEXT, cancelled=_COUNT)
    return {
        "operationId": "cancel_waiting",
        "summary": "Cancel everything that waits for an agent; a running turn goes on.",
        "parameters": [_in_path("agent", "Its name; a removed agent's, too.")],
        "requestBody": _body(reason, needed=False),
        "responses": {
            "200": json_answer("How many were cancelled.", done),
            **problems(400, *_CALLER, 404, 408, 413, 415, 503),
        },
    }


def _move_waiting() -> Json:
    counts: Json = {"type": "object", "additionalProperties": _COUNT}
    moved = _object("from to moved", **{"from": _TEXT, "to": _TEXT, "moved": counts})
    return {
        "operationId": "move_waiting",
        "summary": "Give what waits for an agent to another, each in its old place.",
        "description": "Of an agent that was removed from the configuration the dead letters, too.",
        "parameters": [_in_path("agent", "The agent that has the work.")],
        "requestBody": _body(_object("to", to=_NAME)),
        "responses": {
            "200": json_answer("How many moved, by their state.", moved),
            **problems(400, *_CALLER, 404, 408, 413, 415, 503),
        },
    }


def _purge() -> Json:
    return {
        "operationId": "purge_dead_letters",
        "summary": "Forget every dead letter, but those of which a receiver is still to be told.",
        "responses": {
            "200": json_answer("How many are forgotten.", _object("purged", purged=_COUNT)),
            **problems(400, *_CALLER, 503),
        },
    }


def _bus_entries() -> Json:
    some: Json = _list(_TEXT)
    types: Json = _list({"type": "string", "enum": list(bus.TYPES)})
    limit = {"type": "integer", "minimum": 1, "maximum": EXAMINED_MAX, "default": bus.CHUNK}
    page = _object(
        "entries next last trimmed",
        entries=_list(ref("BusEvent")),
        next={"description": "The `after` of the next page.", **_or_null(_TEXT)},
        last={"description": "The newest entry there is.", **_TEXT},
        trimmed={
            "description": "True when entries right after `after` are no longer kept.",
            "type": "boolean",
        },
    )
    return {
        "operationId": "find_bus_entries",
        "summary": "The stored entries of the bus, oldest first, in pages.",
        "parameters": [
            parameter("after", {"type": "string", "default": "0-0"}, "Only what came after it."),
            parameter("limit", limit, "Most entries that are looked at."),
            parameter("agent", some, "Only these agents'."),
            parameter("type", types, "Only these types."),
            parameter("session", some, "Only these sessions'."),
        ],
        "responses": {
            "200": json_answer("The page.", page),
            **problems(400, *_CALLER, 503),
        },
    }


OPERATION_PATHS: Json = {
    "/route": {"post": _route()},
    "/chains/{chain_id}": {"get": _chain()},
    "/agents/{agent}/cancel": {"post": _cancel_waiting()},
    "/agents/{agent}/move": {"post": _move_waiting()},
    "/dead-letters/purge": {"post": _purge()},
    "/bus/entries": {"get": _bus_entries()},
}
