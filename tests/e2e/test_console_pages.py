"""Every page of the console, on a fleet in which much has happened: what it shows, and to whom."""

import re
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from fleet.store import keys
from tests.e2e.console import CHROMIUM, NEEDED, Backstage, chromium, watched
from tests.e2e.console_scenes import model_step, turn_of
from tests.e2e.pictures import pages, played

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason=NEEDED),
]
PATIENCE_MS = 30_000

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
def stage(scenes: Scenes) -> Backstage:
    return scenes[0]


@pytest.fixture
def left(scenes: Scenes) -> dict[str, str]:
    return scenes[1]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield context.new_page()
    context.close()


def detail(page: Page) -> Locator:
    return page.locator("#detail")


def event_of(stage: Backstage, dispatch_id: str) -> dict[str, Any]:
    query = {"content": "1"}
    record = httpx.get(f"{stage.url}dispatches/{dispatch_id}", params=query).json()
    return dict(record["event"])


def opened(page: Page) -> str:
    """The id of the dispatch that is open, as the address names it."""
    page.wait_for_url(re.compile("#/dispatch/"))
    return page.url.rpartition("/")[2]


#: Widths and schemes.
LOOKS: tuple[tuple[int, Literal["light", "dark"]], ...] = ((1440, "light"), (390, "dark"))
NAMES = (
    "agents",
    "agent",
    "dispatches",
    "dispatch",
    "session",
    "dead",
    "approval",
    "fleet",
    "send",
)


@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing(stage: Backstage, left: dict[str, str], page: Page, name: str) -> None:
    wrong = watched(page, f"{stage.url}{pages(left)[name]}")
    if name == "send":
        page.keyboard.press("n")
        page.get_by_role("textbox", name="Text").wait_for()
    elif name in ("agent", "dispatch", "session", "dead", "approval"):
        detail(page).get_by_text("Asking the ledger").wait_for(state="detached")
        for fold in detail(page).locator("summary").all():
            fold.click()
    elif name == "fleet":
        page.get_by_role("heading", name="API tokens").wait_for()
    found = []
    for width, scheme in LOOKS:
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        report = Axe().run(page).response
        assert len(report["passes"]) > 20
        for fault in report["violations"]:
            nodes = [(node["html"][:120], node["failureSummary"]) for node in fault["nodes"]]
            found.append((width, scheme, fault["id"], nodes[:3]))
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert not found
    assert not wrong


def test_a_fleet_of_which_nothing_is_known_yet_says_so(stage: Backstage, page: Page) -> None:
    silent = re.compile(r"/bus(\?|$)")
    page.route(silent, lambda route: route.fulfill(content_type="text/event-stream", body=": \n"))
    page.goto(f"{stage.url}#/dispatch/nope")
    said = detail(page).locator(".hint")
    expect(said).to_contain_text("There is no dispatch of this id")
    expect(said.locator("code")).to_have_text("GET /dispatches")
    expect(page.locator("#feed-list > li")).to_have_count(0)
    assert "Nothing has happened yet" in page.evaluate(
        "getComputedStyle(document.querySelector('.nothing-yet'), '::before').content"
    )


def test_every_tab_is_seen_on_a_phone(stage: Backstage, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    watched(page, stage.url)
    for tab in page.locator(".tabs a").all():
        box = tab.bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 390
    for caption in page.locator("#throughput figcaption, #latency figcaption").all():
        assert caption.evaluate("node => node.scrollWidth <= node.clientWidth + 1")


@pytest.mark.parametrize("width", [390, 1024])
def test_what_is_covered_on_a_small_screen_is_no_stop_of_the_keyboard(
    stage: Backstage, left: dict[str, str], page: Page, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    watched(page, f"{stage.url}#/dispatches")
    row = page.locator(f"#row-{left['conversation']}")
    for leave in ("Escape", "Enter"):
        row.click()
        expect(detail(page)).to_be_focused()
        for _ in range(4):
            page.keyboard.press("Shift+Tab")
            assert page.evaluate("!document.activeElement.closest('main')")
        detail(page).get_by_role("button", name="Close").focus()
        page.keyboard.press(leave)
        expect(detail(page)).to_be_hidden()
        expect(page.locator("#list")).to_be_focused()


def test_figures_that_are_long_do_not_touch_on_a_phone(stage: Backstage, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    watched(page, stage.url)
    wait = page.locator('[data-figure="oldest wait"] dd')
    wait.evaluate("node => { node.textContent = '23 min 52 s'; }")
    assert wait.evaluate("node => node.scrollWidth <= node.clientWidth")


def test_an_event_is_sent_and_sent_again_edited(stage: Backstage, page: Page) -> None:
    watched(page, stage.url)
    page.keyboard.press("n")
    page.get_by_role("combobox", name="To").fill("gem")
    page.get_by_role("textbox", name="Session").fill("tests")
    page.get_by_role("combobox", name="Lane").select_option("night")
    page.get_by_role("textbox", name="Text").fill("Count the\nslow tests")
    page.keyboard.press("Control+Enter")
    first = opened(page)
    assert event_of(stage, first)["data"]["text"] == "Count the\nslow tests"
    record = stage.books.record(first)
    assert (record["agent"], record["session"], record["priority"]) == ("gem", "tests", "1")
    expect(detail(page)).to_contain_text("Count the")
    detail(page).get_by_role("button", name="Edit and resend").click()
    text = page.get_by_role("textbox", name="Text")
    expect(text).to_have_value("Count the\nslow tests")
    text.fill("Count the quick tests")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("id => !location.hash.endsWith(id)", arg=first)
    second = opened(page)
    assert event_of(stage, second)["data"]["text"] == "Count the quick tests"
    assert stage.books.record(second)["session"] == "tests"
    assert stage.books.state(first) == "queued"


def test_a_refused_event_says_why_and_keeps_the_text(stage: Backstage, page: Page) -> None:
    watched(page, stage.url)
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_role("combobox", name="To").fill("nobody")
    page.get_by_role("textbox", name="Text").fill("hello")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("nobody")
    expect(page.get_by_role("textbox", name="Text")).to_have_value("hello")


def test_lists_say_what_was_said_and_are_searched(
    stage: Backstage, left: dict[str, str], page: Page
) -> None:
    watched(page, f"{stage.url}#/dispatches")
    said = page.locator(f"#row-{left['conversation']}")
    expect(said).to_contain_text("Write a plan for that.")
    expect(said).to_contain_text("parser")
    search = page.get_by_role("searchbox")
    for words, found in (("faster", "What would make it faster?"), ("parser", "Which parts")):
        search.fill(words)
        expect(page.locator("#list")).not_to_contain_text("8080")
        expect(page.locator("#list")).to_contain_text(found)
    search.fill("there is no such thing")
    expect(page.locator("#hint")).to_have_text("Nothing matches.")


def test_steps_show_what_was_asked_and_answered(
    stage: Backstage, left: dict[str, str], page: Page
) -> None:
    watched(page, f"{stage.url}#/dispatch/{left['running']}")
    call = detail(page).locator("details").first
    call.locator("summary").click()
    expect(call).to_contain_text("You are Archie, the architect.")
    expect(call).to_contain_text('queue_stats({"agent": "archie"})')
    expect(call.locator("summary")).to_contain_text("900 in, 180 out")
    page.keyboard.press("h")
    expect(detail(page)).not_to_contain_text("You are Archie")


def test_a_step_from_the_journal_says_that_it_was_not_paid_for_again(
    stage: Backstage, page: Page
) -> None:
    (dispatch_id,) = stage.books.accept("mini", "Try twice.")
    first = stage.run("mini", dispatch_id)
    model_step(turn_of(stage, first), "Once.")
    stage.books.fail(first)
    stage.books.reclaim()
    second = stage.run("mini", dispatch_id)
    model_step(turn_of(stage, second), "never asked for")
    watched(page, f"{stage.url}#/dispatch/{dispatch_id}")
    step = detail(page).locator(".calls > li")
    expect(step).to_have_count(1)
    expect(step).to_contain_text("kept from attempt 1: not paid for again")
    stage.books.complete(second)
    expect(detail(page).locator(".answer")).to_have_text("done")


def test_a_session_is_a_conversation(stage: Backstage, page: Page) -> None:
    watched(page, f"{stage.url}#/sessions")
    page.locator("#row-parser").click()
    expect(page).to_have_url(re.compile("#/session/parser$"))
    bubbles = detail(page).locator(".bubble .words")
    expect(bubbles).to_have_count(6)
    expect(bubbles.nth(1)).to_contain_text("The tokenizer")
    expect(bubbles.nth(4)).to_have_text("Write a plan for that.")


def test_a_chain_is_a_picture_with_who_decides(
    stage: Backstage, left: dict[str, str], page: Page
) -> None:
    watched(page, f"{stage.url}#/dispatch/{left['approval']}")
    stages = detail(page).locator(".flow > li")
    expect(stages).to_have_count(3)
    expect(stages.nth(1)).to_contain_text("gem ✓ approved")
    expect(stages.nth(2)).to_contain_text("ops decides")
    expect(stages.nth(2)).to_have_attribute("aria-current", "step")
    expect(detail(page).locator(".stages")).to_contain_text("watch the error rate for an hour")


def test_an_agent_tells_what_it_is_for_and_no_secret(stage: Backstage, page: Page) -> None:
    watched(page, f"{stage.url}#/agent/scout")
    expect(detail(page)).to_contain_text("Looks things up.")
    expect(detail(page)).to_contain_text("--api-key")
    assert "hunter2" not in page.content()
    expect(page.locator("#row-archie")).to_contain_text("of $5.00")


def test_an_agent_of_a_pool_says_how_many_turns_it_has(stage: Backstage, page: Page) -> None:
    client = stage.books.store.client
    client.hset(keys.POOLS, "mini", "1 1 crew")
    client.sadd(keys.running("mini"), "one", "two")
    try:
        watched(page, f"{stage.url}#/agent/mini")
        running = page.locator('#row-mini [data-cell="running"]')
        expect(running).to_contain_text("2 turns")
        expect(running).to_contain_text("pool crew")
        expect(detail(page).locator("dl").first).to_contain_text("crew")
    finally:
        client.hdel(keys.POOLS, "mini")
        client.delete(keys.running("mini"))


def test_the_skip_link_goes_to_what_is_shown(stage: Backstage, page: Page) -> None:
    for view, content in (("dispatches", "#list"), ("fleet", "#page")):
        watched(page, f"{stage.url}#/{view}")
        skip = page.get_by_role("link", name="Skip to the content")
        skip.focus()
        page.keyboard.press("Enter")
        expect(page.locator(content)).to_be_focused()


def test_an_id_and_a_command_are_copied(stage: Backstage, left: dict[str, str], page: Page) -> None:
    watched(page, f"{stage.url}#/dispatch/{left['dead']}")
    for button, copied in (
        ("Copy id", left["dead"]),
        ("Copy as curl", f"curl -sS '{stage.url}dispatches/{left['dead']}?content=1'"),
        ("Copy link", f"{stage.url}#/dispatch/{left['dead']}"),
    ):
        detail(page).get_by_role("button", name=button).click()
        page.wait_for_function(
            "text => navigator.clipboard.readText().then(one => one === text)", arg=copied
        )


def test_several_are_selected_and_cancelled(stage: Backstage, page: Page) -> None:
    ids = [stage.books.accept("mini", f"bulk {number}")[0] for number in range(3)]
    watched(page, f"{stage.url}#/dispatches")
    for dispatch_id in ids[:2]:
        page.get_by_role("checkbox", name=f"Select {dispatch_id[:8]}").check()
    page.get_by_role("button", name="Cancel 2").click()
    page.locator("dialog").get_by_role("button", name="Cancel 2 dispatches").click()
    for dispatch_id in ids[:2]:
        expect(page.locator(f"#row-{dispatch_id}")).to_contain_text("cancelled")
    assert [stage.books.state(one) for one in ids] == ["cancelled", "cancelled", "queued"]


def test_charts_show_an_hour_a_day_and_a_week(stage: Backstage, page: Page) -> None:
    watched(page, f"{stage.url}#/fleet")
    for span in ("Last day", "Last week", "Last hour"):
        page.get_by_role("button", name=span).click()
        chart = page.get_by_role("img", name=re.compile(r"^Ended: \d+ completed, 3 badly"))
        expect(chart).to_be_visible()


def test_an_agent_has_charts_of_its_own(stage: Backstage, page: Page) -> None:
    watched(page, f"{stage.url}#/agent/scout")
    charts = detail(page).get_by_role("region", name="Its work over time")
    expect(charts.get_by_role("img", name="Ended: 0 completed, 3 badly")).to_be_visible()
    charts.get_by_role("button", name="Last week").press("Enter")
    expect(charts.get_by_role("button", name="Last week")).to_have_attribute("aria-pressed", "true")
    expect(charts.get_by_role("img", name="Ended: 0 completed, 3 badly")).to_be_visible()
    page.goto(f"{stage.url}#/agent/archie")
    ended = charts.get_by_role("img", name=re.compile(r"^Ended: 4 completed, 0 badly"))
    expect(ended).to_be_visible()
    expect(charts.get_by_role("img", name=re.compile(r"^Cost: \$0\.0"))).to_be_visible()


def test_an_empty_list_says_what_to_do(stage: Backstage, page: Page) -> None:
    page.route(
        "**/dispatches?**", lambda route: route.fulfill(json={"dispatches": [], "cursor": None})
    )
    watched(page, f"{stage.url}#/dispatches")
    empty = page.locator("#hint")
    expect(empty.locator("code")).to_have_text('fleet send "hello"')
    expect(empty.get_by_role("button", name="Send an event")).to_be_visible()
