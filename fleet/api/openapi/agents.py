"""The OpenAPI description of `/agents`."""

from fleet.api.openapi.parts import Json, json_answer, parameter, problems, ref
from routing.event import NAME_CHARS_MAX

_NAME: Json = {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX}


def _named(description: str) -> Json:
    return {**parameter("agent", _NAME, description, place="path"), "required": True}


def _find() -> Json:
    some = {"type": "array", "items": _NAME}
    return {
        "operationId": "find_agents",
        "summary": "Who there is, who holds them, what runs, waits and was spent today (UTC).",
        "parameters": [parameter("agent", some, "Only these.")],
        "responses": {
            "200": json_answer(
                "The agents, as configured; then removed ones that still have work.", ref("Agents")
            ),
            **problems(400, 401, 403, 429, 503),
        },
    }


def _get() -> Json:
    return {
        "operationId": "get_agent",
        "summary": "One agent.",
        "parameters": [_named("Its name.")],
        "responses": {
            "200": json_answer("The agent.", ref("Agent")),
            **problems(401, 403, 404, 429, 503),
        },
    }


def _config() -> Json:
    return {
        "operationId": "get_agent_config",
        "summary": "The options that the configuration sets, with secrets masked. Scope: admin.",
        "parameters": [_named("Its name.")],
        "responses": {
            "200": json_answer("The options.", ref("AgentOptions")),
            **problems(401, 403, 404, 429, 503),
        },
    }


def _switch(verb: str, summary: str) -> Json:
    operation: Json = {
        "operationId": f"{verb}_agent",
        "summary": summary,
        "parameters": [_named("Its name, or `all`.")],
        "responses": {
            "200": json_answer("What each is now.", ref("Switched")),
            **problems(401, 403, 404, 429, 503),
        },
    }
    if verb == "drain":
        operation["responses"]["202"] = json_answer("A turn still runs.", ref("Switched"))
    return operation


AGENT_PATHS: Json = {
    "/agents": {"get": _find()},
    "/agents/{agent}": {"get": _get()},
    "/agents/{agent}/config": {"get": _config()},
    **{
        f"/agents/{{agent}}/{verb}": {"post": _switch(verb, summary)}
        for verb, summary in {
            "pause": "Let it finish its running turn and start no other.",
            "resume": "Let a paused one go on.",
            "drain": "Pause it; 202 while a turn still runs: ask again until 200.",
        }.items()
    },
}
