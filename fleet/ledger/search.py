"""Searching dispatches by words, session and source, and the first line of each event's text.

A search reads a bounded number of records and answers a cursor from which the next one goes on, as
`views.find` does. Texts are content: a search looks at them only where the caller says so.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.ledger import views
from fleet.ledger.views import Page
from fleet.store import Store, keys
from fleet.store.connection import reachable

#: Records that one search reads.
EXAMINED_MAX = 2000
WORDS_CHARS_MAX = 200
#: The first line of a text, as lists show it.
LINE_CHARS_MAX = 160
_CHUNK = 200
#: Bytes of an event that are searched.
_SEARCHED_BYTES = 16 * 1024
_CUT_TEXT = re.compile(r'"text": ?"((?:[^"\\]|\\.)*)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The dispatches that a search finds; an empty text stands for any."""

    words: str = ""  #: part of an id, a session, a source, an agent, or of the event's text
    session: str = ""
    source: str = ""
    model: str = ""  #: part of the name of the model that answered

    @property
    def is_any(self) -> bool:
        """True when every dispatch is wanted."""
        return not (self.words or self.session or self.source or self.model)

    def matches(self, row: Mapping[str, Any], text: str) -> bool:
        """True for the record of a dispatch that is wanted, with the text of its event."""
        if self.session and row.get("session") != self.session:
            return False
        if self.source and row.get("source") != self.source:
            return False
        if self.model and self.model.casefold() not in str(row.get("model", "")).casefold():
            return False
        words = self.words.casefold()
        names = ("dispatch_id", "event_id", "session", "source", "agent", "model")
        found = (str(row.get(name, "")) for name in names)
        return not words or any(words in one.casefold() for one in (*found, text))


def search(
    store: Store,
    wanted: Wanted,
    *,
    content: bool,
    reads: Callable[[str], bool] = lambda _: True,
    agent: str | None = None,
    states: Sequence[str] = (),
    limit: int = 20,
    cursor: str | None = None,
) -> Page:
    """A page of dispatches that are wanted and whose agents the caller `reads`, newest first.

    With `content` a row has `text`, the first line of its event. The page may hold fewer than
    `limit` rows, or none, and have a cursor all the same.
    """
    found: list[dict[str, Any]] = []
    examined = 0
    chunk = limit if wanted.is_any else _CHUNK
    while examined < EXAMINED_MAX:
        page = views.find(store, agent=agent, states=states, limit=chunk, cursor=cursor)
        rows = [row for row in page.dispatches if reads(row["agent"])]
        texts = _texts(store, rows) if content else [""] * len(rows)
        for row, text in zip(rows, texts, strict=True):
            if not wanted.matches(row, text):
                continue
            found.append({**row, "text": first_line(text)} if content else row)
            if len(found) == limit:
                return Page(dispatches=found, cursor=_place(store, row, page.cursor))
        examined += len(page.dispatches)
        cursor = page.cursor
        if cursor is None or wanted.is_any:
            break
    return Page(dispatches=found, cursor=cursor)


def first_lines(store: Store, dispatch_ids: Sequence[str]) -> list[str]:
    """The first line of each dispatch's event."""
    return [first_line(text) for text in _texts(store, [{"dispatch_id": i} for i in dispatch_ids])]


def first_line(text: str) -> str:
    """The first line that is not empty, cut to what a list shows."""
    line = next(filter(None, map(str.strip, text[:4096].splitlines())), "")
    return line if len(line) <= LINE_CHARS_MAX else f"{line[: LINE_CHARS_MAX - 1]}…"


def _place(store: Store, row: Mapping[str, Any], otherwise: str | None) -> str | None:
    """The cursor behind a row; where it is gone already, that of its page."""
    with reachable():
        place: Any = store.client.zscore(keys.INDEX, row["dispatch_id"])
    return otherwise if place is None else f"{float(place):.0f}"


def _texts(store: Store, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The beginning of the text of each dispatch's event; empty where it is not known."""
    if not rows:
        return iter(())
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        for row in rows:
            pipe.hget(keys.dispatch(row["dispatch_id"]), "event")
        digests = pipe.execute()
        pipe = store.client.pipeline(transaction=False)
        for digest in digests:
            pipe.getrange(keys.payload(digest or ""), 0, _SEARCHED_BYTES - 1)
        return map(_text, pipe.execute())


def _text(payload: str) -> str:
    """The text in an event, which may be cut off."""
    try:
        event = json.loads(payload or "{}")
    except json.JSONDecodeError:
        cut = _CUT_TEXT.search(payload)
        return "" if cut is None else cut[1].replace("\\n", "\n").replace('\\"', '"')
    data = event.get("data", event)
    text = data.get("text", "") if isinstance(data, dict) else data
    return text if isinstance(text, str) else ""
