"""The architecture and the style as tests: who may import whom, and how large a thing may grow.

`print`, bare `except`, docstrings and annotations are ruff's part (pyproject.toml); this file holds
what ruff cannot say. The tables below are the architecture document: change them on purpose.
"""

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Which of our packages a package may import besides itself. Imports never point back.
MAY_IMPORT = {"routing": set(), "fleet": {"routing"}, "tasks": {"fleet", "routing"}}

#: What speaks the Model Context Protocol: its server, and the client of tool servers.
MCP = (
    *(f"fleet.api.mcp.{one}" for one in ("passed", "server")),
    *(f"fleet.toolservers.{one}" for one in ("connection", "program", "server", "web")),
)

#: Packages that only these modules, and those below them, may import: a slow or a risky import
#: stays where it is needed.
ONLY_IN = {
    "litellm": ("tasks.adapter", "tasks.echo"),
    "openai": ("tasks.model",),
    "starlette": ("fleet.api", "fleet.bench._api_peer", "fleet.bench._bus_peer"),
    "uvicorn": ("fleet.api", "fleet.bench._api_peer", "fleet.bench._bus_peer"),
    "mcp": MCP,
    "httpx2": ("fleet.toolservers.web",),
    "anyio": ("fleet.toolservers",),
    "click": ("fleet.bench", "fleet.cli", "fleet.isolated"),
    "opentelemetry": ("fleet.tracing",),
    "prometheus_client": ("fleet.metrics",),
    "rich": ("fleet.bench", "fleet.cli", "fleet.up"),
}

#: The name by which `celery -A fleet` finds the app.
MAY_SHADOW = {"fleet.celery"}

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50

#: What a reader must find above a script: what it is given, what it answers, what stays true.
LUA_LEGEND = ("-- ARGV ", "-- Keys ", "-- Returns ", "-- Invariants")

#: Folders that are not part of the project although they lie in a checkout.
NOT_OURS = {".git", ".venv", ".fleet", ".hypothesis", "__pycache__", "build", "dist"}


def files(*suffixes: str, under: Path = ROOT) -> list[Path]:
    """Every file of the project; generated folders and caches are left out."""
    found = []
    for folder, folders, names in os.walk(under):
        folders[:] = [name for name in folders if name not in NOT_OURS and "_cache" not in name]
        # `.git` is a file in a linked work tree.
        names = [name for name in names if name not in NOT_OURS]
        found += [Path(folder, name) for name in names if not suffixes or name.endswith(suffixes)]
    return sorted(found)


def module_name(path: Path) -> str:
    """`fleet/store/__init__.py` is `fleet.store`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): ast.parse(path.read_bytes())
    for package in MAY_IMPORT
    for path in files(".py", under=ROOT / package)
}


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module named in an import, at whatever depth; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def runs_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The statements that run when the module is imported: not in a function, not for typing."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


def packages_of(names: Iterator[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_imports_point_one_way() -> None:
    backwards = {
        f"{name} -> {target}"
        for name, tree in MODULES.items()
        for target in packages_of(imported(tree)) & MAY_IMPORT.keys()
        if target not in MAY_IMPORT[package := name.partition(".")[0]] | {package}
    }
    assert not backwards


def test_routing_is_pure() -> None:
    """Routing needs the standard library and nothing else."""
    known = sys.stdlib_module_names | {"routing"}
    routing = [tree for name, tree in MODULES.items() if name.startswith("routing")]
    assert set().union(*(packages_of(imported(tree)) for tree in routing)) <= known


@pytest.mark.parametrize("package", ONLY_IN)
def test_costly_packages_stay_where_they_are_needed(package: str) -> None:
    users = [name for name, tree in MODULES.items() if package in packages_of(imported(tree))]
    assert not [name for name in users if not f"{name}.".startswith(homes(package))]


def homes(package: str) -> tuple[str, ...]:
    return tuple(f"{home}." for home in ONLY_IN[package])


def test_fleet_can_be_imported_for_nothing() -> None:
    tree = MODULES["fleet"]
    assert not list(imported(tree)), "fleet/__init__.py imports nothing"


def test_modules_do_not_import_each_other_in_a_ring() -> None:
    """Following imports that run at import time never leads back to where it began."""
    edges = {
        name: {
            target
            for node in runs_at_import(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for target in imported(node)
            if target in MODULES and target != name
        }
        for name, tree in MODULES.items()
    }
    done: set[str] = set()

    def follow(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(edges[name]):
                follow(target, (*trail, name))
            done.add(name)

    for name in edges:
        follow(name, ())


def test_no_module_shadows_the_standard_library_or_celery() -> None:
    taken = sys.stdlib_module_names | {"celery", "kombu", "redis", "utils"}
    at_the_top = {name for name in MODULES if name.count(".") == 1}
    shadows = {name for name in at_the_top if name.partition(".")[2] in taken}
    assert shadows <= MAY_SHADOW


def test_files_stay_readable() -> None:
    sizes = {
        path.relative_to(ROOT): len(path.read_text().splitlines())
        for path in files(".py", ".lua", ".html", ".js", ".css")
    }
    assert not {path: lines for path, lines in sizes.items() if lines > FILE_LINES_MAX}


def test_functions_stay_readable() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in files(".py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= FUNCTION_LINES_MAX
    }
    assert not long


def test_each_script_opens_with_its_legend() -> None:
    incomplete = {}
    for path in files(".lua"):
        header = re.match(r"(?:--.*\n)+", path.read_text())
        assert header, f"{path.relative_to(ROOT)} has no comment on top"
        missing = [word for word in LUA_LEGEND if word not in header[0]]
        if missing and not path.name.startswith("_"):  # a part put before others is no script
            incomplete[path.name] = missing
    assert not incomplete


#: Written so that this file does not match itself.
PRIVATE = re.compile(r"/[r]oot/|/[w]ork/|/(?:home|Users)/[a-z]+/|[p]ythonhosted|[p]ypi\.org/simple")


def test_nothing_names_this_machine_or_a_registry() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {hit[0]}"
        for path in files()
        for hit in PRIVATE.finditer(path.read_text(encoding="utf-8", errors="replace"))
    }
    assert not found
