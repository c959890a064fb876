"""The page `/docs`: Swagger UI as it was published, its licence, and nothing from elsewhere."""

import hashlib
import re
from importlib import resources

FOLDER = resources.files("fleet.api") / "explorer"
#: Of the npm package swagger-ui-dist 5.35.0. For a newer one replace the files and their licence.
PUBLISHED = {
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}


def test_the_library_is_unchanged() -> None:
    for name, digest in PUBLISHED.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest


def test_its_licence_comes_along() -> None:
    text = (FOLDER / "LICENSE.swagger-ui.txt").read_text()
    assert "swagger-ui-dist 5.35.0" in text
    assert "Apache License" in text


def test_the_page_asks_nobody_else() -> None:
    for name in ("index.html", "page.css", "start.js"):
        assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w", (FOLDER / name).read_text())


def test_every_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r'"docs/([\w.-]+)"', (FOLDER / "index.html").read_text()))
    there = {entry.name for entry in FOLDER.iterdir()}
    assert named | {"index.html", "LICENSE.swagger-ui.txt"} == there
