"""`reference/keys.md`: the table of keys in the store."""

from fleet.store import keys as declared
from tests.docs.markdown import code, document, table

INTRODUCTION = """\
All keys begin with `fleet:`, except Celery's queues. Content, which is prompts and answers, is
only in the keys that say so. The keys are not an interface: read the ledger by
[commands](commands.md) and by [HTTP](http.md)."""


def page() -> str:
    """The page."""
    head, _, *rows = _rows()
    cells = ((", ".join(map(code, row[0].split(", "))), *row[1:]) for row in rows)
    return document(
        "Keys",
        "After reading this page you know every key that the fleet has in Valkey, and its life.",
        INTRODUCTION,
        table(head, cells),
    )


def _rows() -> list[list[str]]:
    lines = (declared.__doc__ or "").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]
