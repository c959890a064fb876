"""`reference/http.md`: the OpenAPI document, for people."""

from collections.abc import Iterable, Iterator

from fleet.api.openapi.document import document as openapi
from fleet.api.request.problems import MEDIA_TYPE
from tests.docs.markdown import Schema, code, document, figure, kind, sentence, table

INTRODUCTION = """\
The API listens on `api.host` and `api.port`, by default <http://127.0.0.1:8700>. `/openapi.json`
describes the same calls for programs. A token is sent as `Authorization: Bearer TOKEN`; without
any token in the fleet, none is needed on loopback. In a path the beginning of an id stands for it,
6 characters or more; where several begin so, the answer is 409 and names them. A refusal is a
problem document; [Errors](errors.md) lists the codes."""


def page() -> str:
    """The page."""
    described = openapi()
    shapes = described["components"]["schemas"]
    calls = [
        (path, method, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    return document(
        "HTTP",
        "After reading this page you can make every call of the API.",
        INTRODUCTION,
        "## Refusals",
        table(("status", "meaning"), _refusals(operation for _, _, operation in calls)),
        *(part for path, method, one in calls for part in _call(path, method, one)),
        "## Shapes",
        *(part for name, one in shapes.items() for part in _named(name, one)),
    )


def _call(path: str, method: str, operation: Schema) -> Iterator[str]:
    yield f"## `{method.upper()} {path}`"
    yield sentence(operation["summary"])
    if "description" in operation:
        yield sentence(operation["description"])
    if parameters := operation.get("parameters"):
        yield table(("parameter", "in", "type", "meaning"), map(_parameter, parameters))
    if body := operation.get("requestBody"):
        bodies = ((code(name), _body(one)) for name, one in body["content"].items())
        yield table(("body", "shape"), bodies)
    yield table(("status", "meaning", "answer"), _answers(operation["responses"]))


def _parameter(one: Schema) -> tuple[str, str, str, str]:
    schema = one["schema"]
    default = f" Default {code(schema['default'])}." if "default" in schema else ""
    needed = "Needed." if one.get("required") else ""
    return code(one["name"]), one["in"], kind(schema), f"{one.get('description', needed)}{default}"


def _body(content: Schema) -> str:
    schema = content.get("schema", {})
    if properties := schema.get("properties"):
        return ", ".join(f"{code(name)} ({kind(one)})" for name, one in properties.items())
    return kind(schema)


def _refusals(operations: Iterable[Schema]) -> list[tuple[str, str]]:
    """Each status that a problem document can have, and its meaning, over all calls."""
    every = (one for operation in operations for one in operation["responses"].items())
    return sorted(
        {(status, sentence(one["description"])) for status, one in every if _is_problem(one)}
    )


def _is_problem(answer: Schema) -> bool:
    return MEDIA_TYPE in answer.get("content", {})


def _answers(responses: Schema) -> Iterator[tuple[str, str, str]]:
    for status, answer in responses.items():
        if _is_problem(answer):
            continue
        shapes = []
        for media_type, content in answer.get("content", {}).items():
            shape = _body(content) if "schema" in content else ""
            plain = media_type if shape in ("", "text", "table") else shape
            shapes.append(code(plain) if plain == media_type else plain)
        yield status, sentence(answer["description"]), ", ".join(dict.fromkeys(shapes))
    if refusals := sorted(status for status, one in responses.items() if _is_problem(one)):
        yield ", ".join(refusals), "[Refused](#refusals).", "[Problem](#problem)"


def _named(name: str, schema: Schema) -> Iterator[str]:
    yield f"### {name}"
    needed = schema.get("required", ())
    head = ("field", "type", "always", "meaning")
    yield table(
        head,
        (
            (code(field), kind(one), "yes" if field in needed else "", _meaning(one))
            for field, one in schema.get("properties", {}).items()
        ),
    )


def _meaning(schema: Schema) -> str:
    default = schema.get("default")
    shown = figure(default) if isinstance(default, int | float) else default
    text = sentence(schema.get("description", ""))
    return text if default is None else f"{text} Default {code(shown)}.".strip()
