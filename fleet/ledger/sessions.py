"""The conversations of late: the sessions of the newest dispatches, with what became of them."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.ledger import search, views
from fleet.store import Store, keys
from fleet.store.connection import reachable

#: Dispatches that one page looks through for their sessions.
SEEN_MAX = 2000
SESSIONS_MAX = 200
_CHUNK = 500
#: The place in the index below which a page reads, and how many of its sessions came before.
_CURSOR = re.compile(r"[0-9]{1,16}\.[0-9]{1,4}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPage:
    """Some sessions, last active first, and where the next page starts (None at the end).

    A page counts the dispatches that it has read. A session can be on several pages: the sums of
    these are the sums of the session.
    """

    sessions: list[dict[str, Any]]
    cursor: str | None


def is_cursor(text: str) -> bool:
    """True for a text that can be the cursor of a page."""
    return _CURSOR.fullmatch(text) is not None


def recent(
    store: Store,
    *,
    content: bool,
    reads: Callable[[str], bool] = lambda _: True,
    agent: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> SessionPage:
    """The sessions of the newest dispatches whose agents the caller `reads`, last active first.

    With `content` each has `text`, the first line of its newest event.
    """
    below, _, skipped = (cursor or ".0").partition(".")
    found: dict[str, dict[str, Any]] = {}
    above, seen, end = below, 0, below or None
    while seen < SEEN_MAX:
        page = views.find(store, agent=agent, limit=min(_CHUNK, SEEN_MAX - seen), cursor=end)
        above = above or _above(store, page.dispatches)
        for row in page.dispatches:
            if row.get("session") and reads(row["agent"]):
                _add(found, row)
        seen += len(page.dispatches)
        end = page.cursor
        if end is None:
            break
    first = int(skipped)
    newest = list(found.values())[first : first + limit]
    for one in newest:
        one["states"] = dict(one["states"])
    if content:
        lines = search.first_lines(store, [one["newest_id"] for one in newest])
        for one, line in zip(newest, lines, strict=True):
            one["text"] = line
    if first + limit < len(found):
        return SessionPage(sessions=newest, cursor=f"{above}.{first + limit}")
    return SessionPage(sessions=newest, cursor=f"{end}.0" if end else None)


def _above(store: Store, rows: Sequence[Mapping[str, Any]]) -> str:
    """The place just above the newest of these rows: what comes later is not in their pages."""
    if not rows:
        return ""
    with reachable():
        places: Any = store.client.zmscore(keys.INDEX, [row["dispatch_id"] for row in rows])
    return f"{max((float(place) for place in places if place is not None), default=-1.0) + 1:.0f}"


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
