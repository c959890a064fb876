"""Writes every generated page."""

from tests.docs import FOLDER, PAGES

for path, page in PAGES.items():
    (FOLDER / path).write_text(page())
