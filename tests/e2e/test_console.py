"""The console in a real browser: live, over outages, by keyboard, and for an operator."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from fleet.auth import tokens
from fleet.config.settings import parse
from fleet.delivery.claims import AttemptResult, report
from tests.e2e.console import CHROMIUM, NEEDED, Backstage, chromium, watched
from tests.fixtures.ledger import Books
from tests.fixtures.outcomes import KEEP_MS, RECEIVER, taken
from tests.fixtures.valkey import Valkey

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason=NEEDED),
]

#: The machine is shared, and a page that reconnects waits up to 5 s between two tries.
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    found = Valkey(tmp_path_factory.mktemp("valkey"), durable=True)
    yield found.start()
    found.kill()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, server: Valkey) -> Iterator[Backstage]:
    chain = '[chains.release]\nstages = ["archie", "human:ops", "gem"]\n'
    found = Backstage(tmp_path_factory.mktemp("stage"), server, ["archie", "gem"], chain)
    found.start()
    yield found
    found.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Valkey]:
    found = Valkey(tmp_path)
    yield found.start()
    found.kill()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


def feed(page: Page, kind: str, dispatch_id: str) -> int:
    """How often the feed shows that this happened to a dispatch."""
    return page.locator(f'#feed-list [data-kind="{kind}"][data-dispatch="{dispatch_id}"]').count()


def row(page: Page, name: str):
    return page.locator(f"#row-{name}")


def queue(page: Page, agent: str):
    """How much waits for an agent, as its row says."""
    return row(page, agent).locator('[data-cell="queue"] > span').first


def test_it_loads_and_asks_nobody_else(stage: Backstage, page: Page) -> None:
    wrong = watched(page, stage.url)
    expect(row(page, "archie")).to_contain_text("offline")
    expect(page.locator("#health")).to_contain_text("degraded")
    expect(page.locator("#count-agents")).to_have_text("2")
    expect(page.get_by_role("link", name="Flower")).to_have_attribute("href", re.compile(":5555"))
    assert not wrong


def test_light_and_dark_differ(stage: Backstage, page: Page) -> None:
    watched(page, stage.url)
    grounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(set(grounds)) == 2


def test_what_happens_is_shown_while_it_happens(stage: Backstage, page: Page) -> None:
    watched(page, stage.url)
    expect(queue(page, "gem")).to_have_text("0")
    (dispatch_id,) = stage.books.accept("gem")
    expect(queue(page, "gem")).to_have_text("1")
    claim = stage.run("gem", dispatch_id)
    expect(row(page, "gem")).to_contain_text(dispatch_id[:8])
    page.goto(f"{stage.url}#/dispatches")
    expect(row(page, dispatch_id)).to_contain_text("active")
    stage.books.complete(claim)
    expect(row(page, dispatch_id)).to_contain_text("completed")
    expect(page.locator("#throughput")).to_have_attribute("title", re.compile(r"[0-9.]+/s ended"))


def test_what_nobody_confirmed_is_no_success(stage: Backstage, page: Page) -> None:
    watched(page, stage.url)
    agent = {"runner": "python", "python": "nobody:nothing", "deliver": ["crm"]}
    told = Books(
        stage.books.store, parse({"agents": {"gem": agent}, "deliveries": {"crm": RECEIVER}})
    )
    (dispatch_id,) = told.accept("gem")
    told.complete(stage.run("gem", dispatch_id))
    sent = taken(told, dispatch_id)
    assert sent
    report(told.store, sent, AttemptResult(kind="unverified", reason="no answer"), KEEP_MS)
    entry = page.locator(
        f'#feed-list [data-kind="delivery_verified"][data-dispatch="{dispatch_id}"]'
    )
    expect(entry).to_contain_text("delivery unverified")
    expect(entry).to_have_attribute("data-trouble", "1")
    entry.click()
    expect(page.locator(".lead", has_text="completed")).to_contain_text("unverified")


def test_nothing_is_missed_while_the_api_is_away(stage: Backstage, page: Page) -> None:
    wrong = watched(page, stage.url)
    page.evaluate("window.loadedOnce = true")
    before = stage.books.accept("gem")
    expect(page.locator(f'[data-dispatch="{before[0]}"]').first).to_be_visible()
    stage.kill()
    expect(page.locator("#link")).to_contain_text("no connection")
    # What was well is not said to be well any more.
    expect(page.locator("#stale")).to_contain_text("this is how it was")
    expect(page.locator("#health")).to_have_attribute("data-level", "unknown")
    away = [stage.books.accept("gem")[0] for _ in range(15)]
    stage.start()
    after = stage.books.accept("gem")
    expect(page.locator("#link")).to_contain_text("live")
    expect(page.locator("#stale")).to_be_hidden()
    expect(page.locator(f'[data-dispatch="{after[0]}"]').first).to_be_visible()
    seen = {one: feed(page, "dispatch_queued", one) for one in [*before, *away, *after]}
    assert set(seen.values()) == {1}
    assert page.evaluate("window.loadedOnce")
    assert not wrong


def test_a_broker_that_restarts_needs_no_reload(
    stage: Backstage, server: Valkey, page: Page
) -> None:
    watched(page, stage.url)
    page.evaluate("window.loadedOnce = true")
    server.kill()
    expect(page.locator("#health")).to_contain_text("down")
    server.start()
    expect(page.locator("#health")).to_contain_text("degraded")
    (dispatch_id,) = stage.books.accept("archie")
    expect(page.locator(f'[data-dispatch="{dispatch_id}"]').first).to_be_visible()
    assert page.evaluate("window.loadedOnce")


def test_a_dead_letter_is_replayed_by_keyboard(stage: Backstage, page: Page) -> None:
    dispatch_id = stage.dead_letter("archie")
    watched(page, stage.url)
    expect(page.locator("#count-dead")).to_have_text("1")
    page.keyboard.press("3")
    expect(row(page, dispatch_id)).to_contain_text("no such model")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_contain_text("no such model")
    page.keyboard.press("r")
    expect(row(page, dispatch_id)).to_have_count(0)
    expect(page.locator("#detail")).to_contain_text("generation 2")
    assert stage.books.state(dispatch_id) == "queued"
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()


def test_a_timeline_has_the_attempts_before(stage: Backstage, page: Page) -> None:
    dispatch_id = stage.dead_letter("archie")
    assert httpx.post(f"{stage.url}dispatches/{dispatch_id}/retry").is_success
    stage.books.complete(stage.run("archie", dispatch_id))
    watched(page, f"{stage.url}#/dispatches?open=dispatch/{dispatch_id}")
    timeline = page.locator("#detail .timeline")
    told = ["accepted", "attempt 1", "failed: llm", "queued again", "attempt 2", "completed"]
    expect(timeline.locator("b")).to_have_text(told)


def parked(stage: Backstage, page: Page) -> str:
    """The id of a dispatch that waits for a person, marked in the list of approvals."""
    (first,) = stage.books.accept("chain:release")
    stage.books.complete(stage.run("archie", first), "a plan")
    expect(page.locator("#count-parked")).to_have_text("1")
    page.keyboard.press("4")
    # Not the agents' rows, which are there until the list has changed.
    waiting = page.locator("#list [role=row].cols-dispatches")
    expect(waiting).to_contain_text("parked")
    page.keyboard.press("j")
    return str(waiting.get_attribute("id")).removeprefix("row-")


def test_a_parked_dispatch_is_approved(stage: Backstage, page: Page) -> None:
    watched(page, stage.url)
    dispatch_id = parked(stage, page)
    page.keyboard.press("Enter")
    detail = page.locator("#detail")
    expect(detail).to_contain_text("stage 2 of 3")
    expect(detail.locator("pre.asked")).to_have_text("hello")
    expect(detail.locator(".stages")).to_contain_text("a plan")
    detail.get_by_role("textbox", name="Comment").fill("go on, carefully")
    detail.get_by_role("button", name="Approve").click()
    expect(detail).to_contain_text("completed")
    expect(row(page, dispatch_id)).to_have_count(0)
    expect(page.locator("#count-parked")).to_be_hidden()
    assert stage.books.state(dispatch_id) == "completed"
    told = httpx.get(f"{stage.url}dispatches/{dispatch_id}", params={"content": "1"}).text
    assert "go on, carefully" in told


def test_a_parked_dispatch_is_rejected_with_a_reason(stage: Backstage, page: Page) -> None:
    watched(page, stage.url)
    dispatch_id = parked(stage, page)
    page.keyboard.press("x")
    page.get_by_role("textbox", name="Reason").fill("not on a Friday")
    page.keyboard.press("Enter")
    expect(row(page, dispatch_id)).to_have_count(0)
    told = httpx.get(f"{stage.url}dispatches/{dispatch_id}", params={"content": "1"}).text
    assert "not on a Friday" in told


def test_an_agent_is_paused_and_resumed_by_keyboard(stage: Backstage, page: Page) -> None:
    watched(page, stage.url)
    expect(row(page, "archie")).to_be_visible()
    page.locator("#list").focus()
    page.keyboard.press("j")
    for offered, paused in (("Resume", True), ("Pause", False)):
        page.keyboard.press("p")
        expect(row(page, "archie").get_by_role("button")).to_have_text(offered)
        assert httpx.get(f"{stage.url}agents/archie").json()["paused"] is paused


def test_an_answer_is_text_whatever_it_holds(stage: Backstage, page: Page) -> None:
    nasty = "<img src=x onerror='window.hit = 1'><script>window.hit = 1</script>"
    (dispatch_id,) = stage.books.accept("gem", text=f"said {nasty}", session=nasty)
    stage.books.complete(stage.run("gem", dispatch_id), answer=nasty)
    wrong = watched(page, f"{stage.url}#/dispatches?open=dispatch/{dispatch_id}")
    detail = page.locator("#detail")
    expect(detail).to_contain_text("completed")
    expect(detail.locator("pre").last).to_have_text(nasty)
    expect(row(page, dispatch_id)).to_contain_text("said <img")
    page.get_by_role("button", name="Hide content").click()
    expect(detail.locator("pre")).to_have_count(0)
    expect(row(page, dispatch_id)).not_to_contain_text("said")
    assert page.locator("#detail img, #detail script").count() == 0
    assert page.evaluate("window.hit") is None
    assert not [problem for problem in wrong if "Content Security" in problem]


def test_the_page_may_run_nothing_but_its_own_files(stage: Backstage) -> None:
    answer = httpx.get(stage.url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", answer.text)
    etag = answer.headers["etag"]
    assert httpx.get(stage.url, headers={"If-None-Match": etag}).status_code == 304
    assert httpx.get(f"{stage.url}console/..%2fapp.py").status_code == 404


def test_a_closed_fleet_asks_for_a_token_and_never_puts_it_into_an_address(
    own_server: Valkey, tmp_path: Path, page: Page
) -> None:
    closed = Backstage(tmp_path, own_server, ["archie"])
    _, secret = tokens.create(closed.books.store, "console", ("admin",))
    closed.start()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(closed.url)
        page.get_by_role("textbox", name="Token").fill(secret)
        page.keyboard.press("Enter")
        page.get_by_text("● live").wait_for()
        expect(row(page, "archie")).to_be_visible()
        page.reload()
        page.get_by_text("● live").wait_for()
        assert page.locator("dialog").count() == 0
        assert page.evaluate("localStorage.length") == 0
        page.goto(f"{closed.url}#/fleet")
        page.get_by_role("button", name="New token").click()
        page.get_by_role("textbox", name="Name").fill("crm")
        page.get_by_role("combobox", name="Scopes").fill("send:archie")
        page.keyboard.press("Enter")
        made = page.locator("dialog .secret").inner_text()
        assert tokens.match(made, tokens.read_all(closed.books.store))
        page.locator("dialog").get_by_role("button", name="Close").click()
        page.get_by_role("button", name="Revoke the token crm").click()
        page.locator("dialog").get_by_role("button", name="Revoke").click()
        expect(page.get_by_text("1 revoked.")).to_be_visible()
        assert not tokens.match(made, tokens.read_all(closed.books.store))
        assert not [url for url in asked if secret in url or made in url]
    finally:
        closed.close()


def test_a_thousand_agents_and_ten_thousand_dispatches(
    own_server: Valkey, tmp_path: Path, page: Page
) -> None:
    names = [f"agent-{number:04}" for number in range(1000)]
    big = Backstage(tmp_path, own_server, names)
    big.start()
    try:
        for start in range(0, 10_000, 500):
            events = [{"to": names[n % 1000], "text": "x"} for n in range(start, start + 500)]
            assert httpx.post(f"{big.url}events", json=events, timeout=30).status_code == 202
        wrong = watched(page, big.url)
        expect(page.locator("#count-agents")).to_have_text("1,000")
        expect(page.locator('[data-figure="queued"] dd')).to_have_text("10,000")
        page.locator("#list").focus()
        page.keyboard.press("End")
        expect(row(page, "agent-0999")).to_be_visible()
        page.keyboard.press("/")
        page.keyboard.type("agent-0042")
        expect(page.locator("#list [role=row]")).to_have_count(1)
        (news,) = big.books.accept("agent-0042")
        expect(page.locator(f'[data-dispatch="{news}"]').first).to_be_visible()
        expect(queue(page, "agent-0042")).to_have_text("11")
        page.goto(f"{big.url}#/dispatches")
        expect(row(page, news)).to_be_visible()
        # To the end of ten thousand: each page is fetched when the one before has been seen.
        page.locator("#list").focus()
        first = httpx.get(f"{big.url}dispatches", params={"agent": names[0], "limit": 20}).json()
        oldest = first["dispatches"][-1]["dispatch_id"]
        last = row(page, oldest)
        for _ in range(200):
            page.keyboard.press("End")
            if last.count():
                break
            page.wait_for_timeout(50)
        expect(last).to_be_visible()
        assert page.evaluate("document.querySelectorAll('*').length") < 4000
        assert not wrong
    finally:
        big.close()


def test_every_session_is_reached_by_scrolling(
    own_server: Valkey, tmp_path: Path, page: Page
) -> None:
    long = Backstage(tmp_path, own_server, ["archie"])
    long.start()
    try:
        # More dispatches than one page of sessions looks through, and more sessions than it lists.
        names = ["oldest", *(f"s{n % 230}" for n in range(2300)), "newest", "oldest"]
        events = [{"to": "archie", "text": f"in {one}", "session": one} for one in names]
        for start in range(0, len(events), 500):
            sent = httpx.post(f"{long.url}events", json=events[start : start + 500], timeout=30)
            assert sent.status_code == 202
        watched(page, f"{long.url}#/sessions")
        first = page.locator("#row-oldest")
        expect(first).to_be_visible()
        page.locator("#list").focus()
        last = row(page, "s0")
        for _ in range(200):
            page.keyboard.press("End")
            if last.count():
                break
            page.wait_for_timeout(50)
        expect(last.locator('[data-cell="dispatches"]')).to_have_text("10")
        page.keyboard.press("Home")
        expect(first.locator('[data-cell="dispatches"]')).to_have_text("2")
        # What is new is counted, and what was fetched before stays.
        long.books.accept("archie", session="newest")
        expect(row(page, "newest").locator('[data-cell="dispatches"]')).to_have_text("2")
        expect(page.locator("#list")).to_have_attribute("aria-rowcount", str(len(set(names)) + 1))
    finally:
        long.close()
