"""The tutorial and the guides do what they say: every file and every command of each page."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.ledger import State
from tests.e2e.docs_model import provider
from tests.e2e.pages import PORTS, Reader, blocks, pattern
from tests.e2e.running import place
from tests.fixtures.valkey import free_port

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "index.md", DOCS / "tutorial.md", *sorted((DOCS / "guides").glob("*.md"))]
#: A block that cannot be run is an exception, which the reader of a page has to believe.
NOT_RUN_MAX = 3
#: Folders of pages that are checked when the whole site is built.
ELSEWHERE = ("operations", "design", "reference")

pytestmark = pytest.mark.timeout(170)


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder as a reader has one: pytest's own are too deep for a socket of other programs."""
    with tempfile.TemporaryDirectory(prefix="fleet-docs-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, short_path: Path) -> None:
    folder = short_path / "fleet"
    folder.mkdir()
    ports = {port: str(free_port()) for port in PORTS}
    with provider() as models:
        env = {
            **models,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "FLEET_API__PORT": ports["8700"],
            "FLEET_FLOWER__ENABLED": "false",
            "FLEET_DRAIN_S": "5",
        }
        with place(folder, None, env) as here:
            Reader(here, ports).follow(blocks(page))


@pytest.mark.parametrize("state", [*State])
def test_every_state_is_explained(state: State) -> None:
    assert f"\n| `{state}` | " in (DOCS / "concepts/states.md").read_text()


@pytest.mark.parametrize(
    "page", [*DOCS.glob("*.md"), *DOCS.glob("[cg]*/*.md")], ids=lambda page: page.stem
)
def test_a_link_within_the_documentation_leads_somewhere(page: Path) -> None:
    for path, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
        target = (page.parent / path).resolve() if path else page
        if target.parent.name not in ELSEWHERE:
            headings = re.findall("^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert not anchor or anchor in map(slug, headings), f"{path}#{anchor}"


def test_an_output_is_compared_with_what_is_shown() -> None:
    shown = pattern("...\n agent   DISPATCH_ID  ...s\nagain DISPATCH_ID\n")
    said = "one line\n\nanother\nagent d-1 0.3s\nagain d-1\n"
    hit = shown.fullmatch(said.replace("\n\n", "\n"))
    assert hit
    assert hit["DISPATCH_ID"] == "d-1"
    assert not shown.fullmatch("agent d-1 0.3s\nagain d-2\n")
    assert not shown.fullmatch("agent d-1 0.3s\nagain d-1\nmore\n")


@pytest.mark.parametrize("text", ["```sh\nls\n```\n", "- a\n\n  ```console\n  $ ls\n  ```\n"])
def test_a_block_that_nobody_would_run_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(AssertionError, match=r"neither run nor marked|a lost fence"):
        blocks(tmp_path / "page.md")


def test_hardly_a_block_is_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    found = [(page, block) for page in PAGES for block in blocks(page) if block.reason]
    with capsys.disabled():
        print(f"\nblocks of the documentation that are not run: {len(found)}")  # noqa: T201
        for page, block in found:
            print(f"  {page.name}: {block.reason}")  # noqa: T201
    assert len(found) <= NOT_RUN_MAX
