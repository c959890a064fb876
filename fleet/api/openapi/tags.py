"""The groups of operations: how a page shows them, and the modules of a generated client."""

from fleet.api.openapi.parts import Json

#: The first part of a path -> its group.
_GROUPS = {
    "events": "events",
    "callbacks": "events",
    "targets": "events",
    "dispatches": "dispatches",
    "sessions": "dispatches",
    "dead-letters": "dispatches",
    "agents": "agents",
    "alerts": "alerts",
    "bus": "streams",
    "ws": "streams",
    "tickets": "streams",
    "mcp": "mcp",
    "health": "operations",
    "metrics": "operations",
    "history": "operations",
    "tokens": "operations",
    "livez": "operations",
    "readyz": "operations",
}
#: What is for people and their tools.
_PAGES = "pages"

TAGS: list[Json] = [
    {"name": "events", "description": "What comes in: send an event, ask what became of it."},
    {"name": "dispatches", "description": "The ledger: one dispatch of an event to an agent."},
    {"name": "agents", "description": "Who works, and pausing them."},
    {"name": "alerts", "description": "What needs an operator."},
    {"name": "streams", "description": "Every state change, live."},
    {"name": "mcp", "description": "Tools by the Model Context Protocol."},
    {"name": "operations", "description": "Health, figures and probes."},
    {"name": _PAGES, "description": "Pages for people, and this document."},
]


def tagged(paths: Json) -> Json:
    """The paths with the group of each operation."""
    return {
        path: {method: {"tags": [_group(path)], **one} for method, one in item.items()}
        for path, item in paths.items()
    }


def _group(path: str) -> str:
    return _GROUPS.get(path.split("/")[1], _PAGES)
