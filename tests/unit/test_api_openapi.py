"""The description of the API names what there is, and nothing else."""

import re
from pathlib import Path

from jsonschema import Draft202012Validator
from starlette.routing import Route, WebSocketRoute

from fleet.api.app import create_api
from fleet.api.openapi.document import document
from fleet.config.settings import parse
from fleet.ledger import bus_types
from fleet.runtime import Runtime


def test_every_route_is_described_and_nothing_else(tmp_path: Path) -> None:
    settings = parse({"fleet": {"data_dir": str(tmp_path)}}, demo=True)
    app = create_api(Runtime(settings, spools=True))
    served = set()
    for route in app.routes:
        assert isinstance(route, Route | WebSocketRoute)
        if isinstance(route, Route) and not route.include_in_schema:
            continue
        methods = route.methods or set() if isinstance(route, Route) else {"GET"}
        served |= {(route.path_format, method.lower()) for method in methods - {"HEAD"}}
    described = {(path, method) for path, item in document()["paths"].items() for method in item}
    assert described == served


def test_it_is_consistent() -> None:
    description = document()
    names = [
        operation["operationId"]
        for item in description["paths"].values()
        for operation in item.values()
    ]
    assert len(set(names)) == len(names)
    schemas = description["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    referred = set(re.findall(r"#/components/schemas/(\w+)", str(description)))
    assert referred == schemas.keys()
    for path, item in description["paths"].items():
        named = set(re.findall(r"{(\w+)}", path))
        for operation in item.values():
            parameters = operation.get("parameters", ())
            assert {one["name"] for one in parameters if one["in"] == "path"} == named


def test_every_operation_is_in_a_group() -> None:
    named = {tag["name"] for tag in document()["tags"]}
    used = {
        tag
        for item in document()["paths"].values()
        for operation in item.values()
        for tag in operation["tags"]
    }
    assert used == named


def test_every_body_is_one_that_generators_of_clients_know() -> None:
    """`openapi-python-client` leaves out others, and fails at a list where there are several."""
    for item in document()["paths"].values():
        for operation in item.values():
            if "requestBody" in operation:
                assert operation["requestBody"]["content"].keys() == {"application/json"}


def test_every_parameter_has_a_schema_and_every_name_is_a_name() -> None:
    for item in document()["paths"].values():
        for operation in item.values():
            assert re.fullmatch(r"[a-z][a-z_]*", operation["operationId"])
            assert all("schema" in one for one in operation.get("parameters", ()))


def test_every_field_of_the_bus_is_described() -> None:
    described = document()["components"]["schemas"]["BusEvent"]["properties"]
    assert described.keys() == {"id", "epoch", "type", "time"} | bus_types.FIELDS.keys()
