"""`reference/settings.md`: each setting with its type, default, environment name and sentence."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from fleet.config.settings import Settings
from tests.docs.markdown import Schema, code, document, figure, kind, sentence, table

INTRODUCTION = """\
The file is `--config FILE`, otherwise `$FLEET_CONFIG`, otherwise `./fleet.toml`. Without any of
them, the built-in demo fleet runs. The environment overrides the file; lists and tables are
written there as JSON. `NAME` stands for the name of an agent, a set of tools, a chain or a
receiver, in upper case in the environment:

    FLEET_API__PORT=0
    FLEET_ROUTES__DEFAULT='["gem"]'
    FLEET_AGENTS__ARCHIE__MODEL=ollama/llama3.1

An unknown key is an error. Times are in seconds. Keys of the table `[fleet]` come first."""

OTHERS = """\
## Other variables

These variables of the environment are not settings:

| variable | meaning |
|---|---|
| `FLEET_CONFIG` | The configuration file, where `--config` names none. |
| `FLEET_REDIS_SERVER` | The server binary of the embedded broker, instead of the bundled Valkey. |
| `OTEL_EXPORTER_OTLP_ENDPOINT` | Where traces go, with the extra `otel` installed. |

Kubernetes sets variables for a Service named `fleet` or `fleet-...`, such as `FLEET_SERVICE_HOST`
and `FLEET_PORT=tcp://...`. These are passed over. Variables named `CELERY_...` change nothing."""

#: Tables that hold one table for each name.
NAMED = ("agents", "pools", "tools", "chains", "deliveries")


class Setting(NamedTuple):
    """One key."""

    key: str
    type: str
    default: str
    sentence: str

    @property
    def variable(self) -> str:
        """The name in the environment; none for a key of one entry in a list."""
        if "[]" in self.key:
            return ""
        return "FLEET_" + self.key.removeprefix("fleet.").replace(".", "__").upper()


def page() -> str:
    """The page."""
    head = ("key and variable", "type", "default", "meaning")
    parts = []
    for title, purpose, rows in sections():
        cells = [(_names(row), row.type, row.default, row.sentence) for row in rows]
        parts += [f"## `{title}`", sentence(purpose), table(head, cells)]
    return document(
        "Settings",
        "After reading this page you can find each setting of `fleet.toml`, its default and its "
        "meaning.",
        INTRODUCTION,
        *parts,
        OTHERS,
    )


def sections() -> Iterator[tuple[str, str, list[Setting]]]:
    """The title, the purpose and the settings of each section."""
    schema = Settings.model_json_schema()
    shapes = schema["$defs"]
    own: list[Setting] = []
    rest = []
    for name, field in schema["properties"].items():
        purpose = Settings.model_fields[name].description or ""
        if name in NAMED:
            shape = _shape(field["additionalProperties"], shapes)
            rest.append((f"[{name}.NAME]", purpose, [*_of_table(f"{name}.NAME", shape, shapes)]))
        elif name == "lanes":
            lane = Setting("lanes.NAME", kind(field["additionalProperties"]), "", purpose)
            rest.append(("[lanes]", "Names for priorities", [lane]))
        elif _shape(field, shapes) and name != "retention":
            rows = [*_of_table(name, _shape(field, shapes), shapes)]
            rest.append((f"[{name}]", purpose, rows))
        else:
            own += _of_field(f"fleet.{name}", field, shapes, needed=False)
    yield "[fleet]", "The fleet as a whole", own
    yield from rest


def _of_table(key: str, shape: Schema, shapes: Schema) -> Iterator[Setting]:
    needed = shape.get("required", ())
    for name, field in shape["properties"].items():
        yield from _of_field(f"{key}.{name}", field, shapes, needed=name in needed)


def _of_field(key: str, field: Schema, shapes: Schema, *, needed: bool) -> Iterator[Setting]:
    """A key and, where it holds tables, the keys of these."""
    shape, items = _shape(field, shapes), _shape(field.get("items", {}), shapes)
    inner = shape or items
    what = "table" if shape else "list of tables" if items else kind(field)
    default = "needed" if needed else "" if shape else _default(field["default"])
    yield Setting(key, what, default, sentence(field["description"]))
    if inner:
        yield from _of_table(key if shape else f"{key}[]", inner, shapes)


def _shape(field: Schema, shapes: Schema) -> Schema:
    """The table that a field holds; empty for a plain value."""
    for one in (field, *field.get("anyOf", ())):
        if "$ref" in one:
            found: Schema = shapes[one["$ref"].rpartition("/")[2]]
            return found
    return {}


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if value in ("", [], {}):
        return "empty"
    if isinstance(value, float):
        return code(figure(value))
    return code(value if isinstance(value, str) else json.dumps(value))


def _names(setting: Setting) -> str:
    return "<br>".join(filter(None, (code(setting.key), code(setting.variable))))
