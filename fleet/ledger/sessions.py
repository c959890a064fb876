"""The conversations of late: the sessions of the newest dispatches, with what became of them."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from fleet.ledger import search, views
from fleet.ledger.search import Wanted
from fleet.store import Store

#: Dispatches that are looked through for their sessions.
SEEN_MAX = 2000
SESSIONS_MAX = 200
_CHUNK = 500


def recent(
    store: Store,
    *,
    content: bool,
    reads: Callable[[str], bool] = lambda _: True,
    agent: str | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """The sessions of the newest dispatches whose agents the caller `reads`, last active first.

    With `content` each has `text`, the first line of its newest event.
    """
    found: dict[str, dict[str, Any]] = {}
    cursor, seen = None, 0
    while seen < SEEN_MAX:
        page = views.find(store, agent=agent, limit=_CHUNK, cursor=cursor)
        for row in page.dispatches:
            if row.get("session") and reads(row["agent"]):
                _add(found, row)
        seen += len(page.dispatches)
        cursor = page.cursor
        if cursor is None:
            break
    newest = list(found.values())[:limit]
    for one in newest:
        one["states"] = dict(one["states"])
        if content:
            wanted = Wanted(session=one["session"])
            page = search.search(store, wanted, content=True, reads=reads, agent=agent, limit=1)
            one["text"] = page.dispatches[0]["text"] if page.dispatches else ""
    return newest


def _add(found: dict[str, dict[str, Any]], row: dict[str, Any]) -> None:
    """Count a dispatch, an older one than those before, for its session."""
    name = row["session"]
    one = found.setdefault(
        name,
        {
            "session": name,
            "agents": [],
            "dispatches": 0,
            "states": Counter(),
            "newest_at": row["accepted_at"],
            "newest_id": row["dispatch_id"],
            "tokens": 0,
            "usd": 0.0,
        },
    )
    if row["agent"] not in one["agents"]:
        one["agents"].append(row["agent"])
    one["dispatches"] += 1
    one["states"][row["state"]] += 1
    one["oldest_at"] = row["accepted_at"]
    one["tokens"] += row.get("tokens_in", 0) + row.get("tokens_out", 0)
    one["usd"] = round(one["usd"] + row.get("usd", 0.0), 6)
