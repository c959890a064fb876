"""The console sets text and never markup, asks nobody else, and its parts are all there."""

import re
from importlib import resources
from pathlib import Path

import pytest

PAGE = "operations/console.md"

FILES = {
    entry.name: entry.read_text()
    for entry in (resources.files("fleet.api") / "console").iterdir()
    if entry.name.endswith((".js", ".css", ".html", ".svg"))
}
SCRIPTS = sorted(name for name in FILES if name.endswith(".js"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_never_makes_markup_of_text(name: str) -> None:
    makers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    assert not re.findall(makers, FILES[name])


def test_nothing_comes_from_elsewhere() -> None:
    known = {"http://www.w3.org/2000/svg"}
    named = {
        url
        for text in FILES.values()
        for url in re.findall(r"(?:https?:)?//[\w.-]+\.\w[\w./-]*", text)
    }
    assert named <= known


def test_no_token_goes_into_an_address() -> None:
    assert "sessionStorage" in FILES["api.js"]
    assert not [name for name in SCRIPTS if re.search(r"[?&](access_)?token=", FILES[name])]


def test_every_part_that_is_imported_or_linked_is_there() -> None:
    used = {part for text in FILES.values() for part in re.findall(r'from "\./([\w.]+)"', text)}
    used |= set(re.findall(r'"console/([\w.]+)"', FILES["index.html"]))
    assert used | {"index.html"} == FILES.keys()


def test_the_pictures_in_the_documentation_are_all_there_and_small() -> None:
    """One picture of every page, made by `make pictures`."""
    docs = Path(__file__).parents[2] / "docs"
    shown = set(re.findall(r"\]\(\.\./(images/console/\w+\.webp)\)", (docs / PAGE).read_text()))
    sizes = {str(path.relative_to(docs)): path.stat().st_size for path in docs.rglob("*.webp")}
    assert sizes.keys() == shown
    assert sum(sizes.values()) < 1_000_000
