"""The console as a screen reader finds it, and on the widest screen."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.console import CHROMIUM, NEEDED, Backstage, chromium, watched
from tests.e2e.pictures import pages, played

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason=NEEDED),
]
PATIENCE_MS = 30_000
#: What a person operates, or goes to by its name.
NAMED = frozenset(
    {
        *("button", "checkbox", "columnheader", "combobox", "complementary", "dialog", "grid"),
        *("heading", "image", "link", "log", "navigation", "region", "row", "searchbox"),
        *("switch", "textbox", "toolbar"),
    }
)
#: By the names of `pages`: what the window is called, and the heading of the list.
TITLES = {
    "agents": ("Agents", "Agents"),
    "agent": ("agent archie", "Agents"),
    "dispatches": ("Dispatches", "Dispatches"),
    "dispatch": (r"dispatch [0-9a-f]{8}", "Dispatches"),
    "session": ("session parser", "Sessions"),
    "dead": (r"dispatch [0-9a-f]{8}", "Dead letters"),
    "approval": (r"dispatch [0-9a-f]{8}", "Approvals"),
    "fleet": ("Fleet", "Fleet"),
}

Scenes = tuple[Backstage, dict[str, str]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def scenes() -> Iterator[Scenes]:
    with played() as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1920, "height": 1080})
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield context.new_page()
    context.close()


def opened(page: Page, scenes: Scenes, name: str) -> None:
    """Show a page with all that belongs to it."""
    stage, left = scenes
    watched(page, f"{stage.url}{pages(left)[name]}")
    page.locator("#detail").get_by_text("Asking the ledger").wait_for(state="detached")
    if name == "fleet":
        page.get_by_role("heading", name="API tokens").wait_for()
    else:
        page.locator("#rows > [role=row]").first.wait_for()


def tree(page: Page) -> list[dict[str, Any]]:
    """The nodes that Chromium gives to a screen reader."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    return [node for node in nodes if not node["ignored"]]


def role(node: dict[str, Any]) -> str:
    return str(node["role"]["value"])


def named(node: dict[str, Any]) -> str:
    return str(node.get("name", {}).get("value", "")).strip()


@pytest.mark.parametrize("name", sorted(TITLES))
def test_everything_has_a_name_and_headings_go_down_by_one(
    scenes: Scenes, page: Page, name: str
) -> None:
    opened(page, scenes, name)
    nodes = tree(page)
    assert not [role(node) for node in nodes if role(node) in NAMED and not named(node)]
    levels = [
        next(one["value"]["value"] for one in node["properties"] if one["name"] == "level")
        for node in nodes
        if role(node) == "heading"
    ]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    landmarks = [role(node) for node in nodes if role(node) in ("banner", "main", "complementary")]
    assert landmarks == ["banner", "main", "complementary"]
    window, heading = TITLES[name]
    expect(page).to_have_title(re.compile(f"^{window} · fleet$"))
    expect(page.locator("main").get_by_role("heading", level=2).first).to_have_text(heading)


@pytest.mark.parametrize("name", sorted(TITLES.keys() - {"fleet"}))
def test_a_list_is_a_grid_with_heads_for_its_cells(scenes: Scenes, page: Page, name: str) -> None:
    opened(page, scenes, name)
    by_id = {node["nodeId"]: node for node in tree(page)}

    def below(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for child in node.get("childIds", ()):
            if child in by_id:
                yield by_id[child]
                yield from below(by_id[child])

    (grid,) = [node for node in by_id.values() if role(node) == "grid"]
    heads, *rows = [node for node in below(grid) if role(node) == "row"]
    columns = [named(node) for node in below(heads) if role(node) == "columnheader"]
    assert rows
    for row in rows:
        cells = [node for node in below(row) if role(node) == "gridcell"]
        assert len(cells) == len(columns), columns


def test_rows_are_read_in_the_order_of_the_page(scenes: Scenes, page: Page) -> None:
    stage, _ = scenes
    opened(page, scenes, "dispatches")
    made = [stage.books.accept("mini", f"read aloud {number}")[0] for number in range(3)]
    rows = page.locator("#rows > [role=row]")
    for dispatch_id in made:
        expect(page.locator(f"#row-{dispatch_id}")).to_be_visible()
    expect(rows.first).to_have_id(f"row-{made[-1]}")
    indices = rows.evaluate_all("nodes => nodes.map(one => Number(one.ariaRowIndex))")
    assert indices == list(range(2, 2 + len(indices)))


def test_an_entry_of_the_feed_is_a_link_to_its_dispatch(scenes: Scenes, page: Page) -> None:
    opened(page, scenes, "agents")
    link = page.locator("#feed-list").get_by_role("link", name="Dispatch").first
    place = link.get_attribute("href")
    link.click()
    expect(page).to_have_url(re.compile(f"{place}$"))


@pytest.mark.parametrize("name", sorted(TITLES))
def test_the_widest_screen_is_used_and_nothing_is_cut_off(
    scenes: Scenes, page: Page, name: str
) -> None:
    opened(page, scenes, name)
    assert page.evaluate("document.scrollingElement.scrollWidth") == 1920
    # The heads, the strip and the tabs show all of their words.
    shown = ".tabs a, .figures dd, .figures dt, #heads > span, .signs *"
    cut = page.evaluate(
        f"[...document.querySelectorAll('{shown}')]"
        ".filter(one => one.offsetParent && !one.querySelector('.unseen'))"
        ".filter(one => one.scrollHeight > one.clientHeight + 1 && one.clientHeight)"
        ".map(one => one.textContent)"
    )
    assert not cut
    heads = page.locator("#heads")
    if name != "fleet":
        box = heads.bounding_box()
        assert box is not None
        assert box["height"] >= 28
        main = page.locator("#main").bounding_box()
        below = page.locator("#under, #table").last.bounding_box()
        assert main is not None
        assert below is not None
        # What stands below a short list reaches the end of the screen.
        assert below["y"] + below["height"] >= main["y"] + main["height"] - 20


@pytest.mark.parametrize("name", ["dead", "agents"])
def test_charts_on_a_wide_screen_are_not_thin_towers(scenes: Scenes, page: Page, name: str) -> None:
    opened(page, scenes, name)
    plots = page.locator("#under .plot")
    expect(plots).to_have_count(4)
    for plot in plots.all():
        box = plot.bounding_box()
        assert box is not None
        assert box["width"] > box["height"]
