"""The architecture and the style as tests: who may import whom, and how large a thing may grow.

`print`, bare `except`, docstrings and annotations are ruff's part (pyproject.toml); this file holds
what ruff cannot say. The tables below are the architecture document: change them on purpose.
"""

import ast
import os
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeGuard

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: The top-level packages.
TOP = ("routing", "fleet", "tasks")


class Package(NamedTuple):
    """A package's floor in the house and its sentence; it imports packages of lower floors only."""

    layer: int
    sentence: str


#: The architecture. `docs/design/architecture.md` is made from this table.
PACKAGES = {
    "routing": Package(0, "Pure decisions: which agents an event goes to, and in which order."),
    "fleet.errors": Package(0, "The errors that callers catch."),
    "fleet.version": Package(0, "The version."),
    "fleet.tracing": Package(0, "OpenTelemetry spans, where the extra is installed."),
    "fleet.formats": Package(0, "Formats that others defined: signatures, Retry-After, escapes."),
    "fleet.config": Package(1, "Everything an operator can set: read, checked whole, frozen."),
    "fleet.system": Package(1, "The operating system: processes, whole-file writes, file locks."),
    "fleet.broker": Package(2, "The embedded Valkey, the audit of any server, the breaker."),
    "fleet.client": Package(2, "A client of a fleet elsewhere, over its HTTP API."),
    "fleet.quiet_log": Package(2, "What logs show: types and places, no content."),
    "fleet.store": Package(3, "The only door to Valkey: connection, keys, scripts, wake-ups."),
    "fleet.ledger": Package(4, "The durable truth: states, moves, queries, bus, upkeep."),
    "fleet.locks": Package(4, "Locks on the store."),
    "fleet.auth": Package(4, "Tokens, scopes, tickets."),
    "fleet.intake": Package(5, "The one way in; kept on disk while the broker is away."),
    "fleet.turn": Package(5, "A runner's tools: journalled steps, live text, budget, limits."),
    "fleet.celery": Package(5, "The Celery app: `celery -A fleet`."),
    "fleet": Package(6, "The public surface, loaded lazily: `from fleet import ...`."),
    "fleet.runtime": Package(6, "Opens and wires all of the above, once in each process."),
    "fleet.tools": Package(7, "The tools that a model may call."),
    "fleet.delivery": Package(7, "Outcomes on their way to receivers."),
    "fleet.upstream": Package(8, "Events from, and outcomes to, an outside gateway."),
    "fleet.worker": Package(8, "The parts that make a Celery worker an agent's worker."),
    "tasks": Package(9, "The code that workers execute: Celery tasks, turns, runners, models."),
    "fleet.ops": Package(10, "An operator's view: health, metrics, alerts, doctor."),
    "fleet.supervisor": Package(10, "A whole fleet on one machine."),
    "fleet.api": Package(11, "HTTP."),
    "fleet.cli": Package(12, "The command line."),
    "fleet.bench": Package(13, "Benchmarks, loaded by name from the command line only."),
    "fleet.__main__": Package(13, "`python -m fleet`."),
}

#: What speaks the Model Context Protocol: its server, and the client of tool servers.
MCP = (
    *(f"fleet.api.mcp.{one}" for one in ("proxied_tools", "server")),
    *(
        f"fleet.tools.mcp.{one}"
        for one in ("connection", "mending", "program", "readable", "server", "web")
    ),
)

#: Packages that only these modules, and those below them, may import: a slow or a risky import
#: stays where it is needed.
ONLY_IN = {
    "litellm": ("tasks.model.litellm",),
    "openai": ("tasks.model.completion",),
    "starlette": ("fleet.api", "fleet.bench._api_peer", "fleet.bench._bus_peer"),
    "uvicorn": (
        "fleet.api",
        "fleet.bench._api_peer",
        "fleet.bench._bus_clients",
        "fleet.bench._bus_peer",
    ),
    "mcp": MCP,
    "httpx2": ("fleet.tools.mcp.web",),
    "anyio": ("fleet.tools.mcp",),
    "flower": ("fleet.supervisor.flower",),
    "tornado": ("fleet.supervisor.flower",),
    "click": ("fleet.bench", "fleet.cli", "fleet.store.celery_app"),
    "opentelemetry": ("fleet.tracing",),
    "prometheus_client": ("fleet.ops.metrics",),
    "rich": ("fleet.bench", "fleet.cli", "fleet.supervisor"),
}

#: The name by which `celery -A fleet` finds the app.
MAY_SHADOW = {"fleet.celery"}

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50

#: What a reader must find above a script: what it is given, what it answers, what stays true.
LUA_LEGEND = ("-- ARGV\n", "-- Keys ", "-- Returns ", "-- Invariants")

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
    for package in TOP
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


def packages_of(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def package_of(name: str) -> str:
    """The row of `PACKAGES` that a module belongs to."""
    return max((one for one in PACKAGES if f"{name}.".startswith(f"{one}.")), key=len)


def module_of(name: str) -> str | None:
    """The module that a dotted name is, or is in; None for one of another project."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def loaded(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, or loaded by a literal name, or run with `-m`."""
    constants = dict(text_constants(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(arg.value) for arg in node.args if _is_text(arg))
        elif isinstance(node, ast.List | ast.Tuple):
            for flag, module in pairwise(node.elts):
                if _is_text(flag) and flag.value == "-m":
                    if isinstance(module, ast.Name) and module.id in constants:
                        yield constants[module.id]
                    elif _is_text(module):
                        yield str(module.value)


def text_constants(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each name of a module that stands for a literal text, with the text."""
    for node in getattr(tree, "body", ()):
        if isinstance(node, ast.Assign) and _is_text(node.value):
            yield from ((ast.unparse(name), str(node.value.value)) for name in node.targets)


def _is_text(node: ast.AST) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_packages_import_lower_layers_only() -> None:
    backwards = {
        f"{name} -> {target}"
        for name, tree in MODULES.items()
        for target in filter(None, map(module_of, loaded(tree)))
        if (home := package_of(name)) != (other := package_of(target))
        and PACKAGES[other].layer >= PACKAGES[home].layer
    }
    assert not backwards


def test_a_constant_that_names_a_program_counts_as_its_import() -> None:
    program = 'MODULE = "tasks.deliver"\nstart([sys.executable, "-m", MODULE])'
    assert "tasks.deliver" in loaded(ast.parse(program))


def test_each_package_has_its_sentence() -> None:
    top = {name for name in MODULES if name.count(".") == (not name.startswith("routing"))}
    assert {package_of(name) for name in top} <= PACKAGES.keys()
    assert {name for name in PACKAGES if name not in MODULES} == set()


#: Public classes that may share a name, each with its reason.
TWICE: set[str] = set()


def test_no_two_public_classes_share_a_name() -> None:
    homes_of: dict[str, list[str]] = {}
    for name, tree in MODULES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes_of.setdefault(node.name, []).append(name)
    assert not {cls: at for cls, at in homes_of.items() if len(at) > 1 and cls not in TWICE}


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


def test_modules_do_not_import_each_other_in_a_ring() -> None:
    """Following imports that run at import time never leads back to where it began."""
    edges = {
        name: {
            target
            for node in runs_at_import(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for target in map(module_of, loaded(node))
            if target and target != name
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


#: First words that make a docstring half a sentence.
NO_BEGINNING = {"What", "Who", "Where", "Whether", "Of", "That", "So", "Else"}

#: Words of a private language; the standard ones are in `docs/concepts/words.md`.
PRIVATE_WORDS = re.compile(
    r"\b(doorbells?|shelters?|couriers?|tellers?|takers?|lingering|put aside|hand-over"
    r"|hand(?:s|ed)? over)\b",
    re.IGNORECASE,
)

#: Everything with docstrings.
WRITTEN = [
    *files(".py", under=ROOT / "fleet"),
    *files(".py", under=ROOT / "routing"),
    *files(".py", under=ROOT / "tasks"),
    *files(".py", under=ROOT / "tests"),
]


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Each docstring of a file, with its line."""
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def test_a_docstring_begins_with_a_verb_or_a_noun_phrase() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in WRITTEN
        for line, text in docstrings(ast.parse(path.read_bytes()))
        if text.replace("'", " ").split()[0] in NO_BEGINNING
    }
    assert not found


def test_no_docstring_uses_a_word_of_a_private_language() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}: {hit[0]}"
        for path in WRITTEN
        for line, text in docstrings(ast.parse(path.read_bytes()))
        if (hit := PRIVATE_WORDS.search(text))
    }
    assert not found


def test_names_are_words_of_the_field() -> None:
    """A defined name that holds a private word; the names on the wire are literals."""
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for path in WRITTEN
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and PRIVATE_WORDS.search(re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", node.name))
    }
    assert not found
