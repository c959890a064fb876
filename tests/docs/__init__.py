"""Generates the pages of the documentation that list what the code declares: one module a page.

`python -m tests.docs`, which `make docs` runs, writes them; a test compares them with the code.
"""

from collections.abc import Callable
from pathlib import Path

from tests.docs import (
    architecture,
    bus,
    commands,
    errors,
    http,
    keys,
    metrics,
    scripts,
    settings,
)

FOLDER = Path(__file__).resolve().parents[2] / "docs"

#: Path of a page within the documentation -> what makes its text.
PAGES: dict[str, Callable[[], str]] = {
    "design/architecture.md": architecture.page,
    "reference/bus.md": bus.page,
    "reference/commands.md": commands.page,
    "reference/errors.md": errors.page,
    "reference/http.md": http.page,
    "reference/keys.md": keys.page,
    "reference/metrics.md": metrics.page,
    "reference/scripts.md": scripts.page,
    "reference/settings.md": settings.page,
}
