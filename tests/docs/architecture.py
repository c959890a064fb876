"""`design/architecture.md`: the layers and who imports whom, from the table in `test_tidy.py`."""

from itertools import groupby

from tests.docs.markdown import code, document, table
from tests.unit.test_tidy import MODULES, ONLY_IN, PACKAGES, loaded, module_of, package_of

RULES = """\
A package imports packages of lower layers only. `tests/unit/test_tidy.py` holds the table below
and keeps this rule. It counts imports within functions, modules that are loaded by name, and
targets of `python -m`, too."""

PATH = """\
## The path of an event

```text
 fleet.api, fleet.cli, a Celery producer
        |                                   an event
        v
 fleet.intake ---- routing                  validated, deduplicated, routed
        |     `--- fleet.intake.spool       on disk while the broker is away
        v
 fleet.ledger                               one Lua script writes event, dispatches and bus entries
        |
 fleet.store  ---- Valkey or Redis
        |                                   a wake-up: an id on the agent's Celery queue
        v
 fleet.worker                               holds the agent's lease
        |
 tasks                                      claims the dispatch and runs its turn
        |     `--- fleet.turn               journalled steps
        |     `--- fleet.tools              tools of a model
        v
 fleet.ledger                               one Lua script commits the outcome
        |
        v
 fleet.delivery, fleet.upstream             the outcome, to its receivers
```"""


def page() -> str:
    """The page."""
    return document(
        "Architecture",
        "After reading this page you know the packages, and which of them may import which.",
        RULES,
        PATH,
        "## Layers",
        "The lowest layer stands last. Within a layer no package imports another.",
        _layers(),
        "## Who imports whom",
        table(("package", "imports"), _imports()),
        "## Libraries at home in one place",
        "Some libraries are slow or risky to import. Only these modules, and those below them, do.",
        table(("library", "imported in"), _libraries()),
    )


def _layers() -> str:
    by_layer = sorted(PACKAGES.items(), key=lambda item: -item[1].layer)
    rows = []
    for layer, packages in groupby(by_layer, key=lambda item: item[1].layer):
        rows += [(str(layer), code(name), package.sentence) for name, package in packages]
    return table(("layer", "package", "its task"), rows)


def _imports() -> list[tuple[str, str]]:
    targets: dict[str, set[str]] = {name: set() for name in PACKAGES}
    for name, tree in MODULES.items():
        home = package_of(name)
        targets[home] |= {package_of(found) for found in map(module_of, loaded(tree)) if found}
    return [
        (code(name), ", ".join(map(code, sorted(found - {name}))) or "nothing of the project")
        for name, found in targets.items()
    ]


def _libraries() -> list[tuple[str, str]]:
    return [(code(name), ", ".join(map(code, homes))) for name, homes in ONLY_IN.items()]
