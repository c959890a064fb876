"""The console while things go wrong: failures, alerts, breakers, and input that is refused."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from fleet.auth import tokens
from fleet.config.sections import BreakerConfig
from fleet.ops.alerts.watch import Alerter
from fleet.store import keys
from fleet.turn.providers import Providers
from routing.event import EVENT_BYTES_MAX
from tests.e2e.console import CHROMIUM, NEEDED, Backstage, chromium, watched
from tests.e2e.pictures import played
from tests.fixtures.ledger import FOR_GOOD, OUTAGE
from tests.fixtures.valkey import Valkey

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason=NEEDED),
]
PATIENCE_MS = 30_000
_TRACE = 'Traceback (most recent call last):\n  File "my_agents.py", line 17, in answer\nKeyError'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def stage() -> Iterator[Backstage]:
    with played() as (found, _):
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield context.new_page()
    context.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Valkey]:
    found = Valkey(tmp_path)
    yield found.start()
    found.kill()


def detail(page: Page) -> Locator:
    return page.locator("#detail")


def failed(stage: Backstage, text: str) -> str:
    """The id of a dispatch that waits for its second attempt."""
    (dispatch_id,) = stage.books.accept("gem", text)
    fault = replace(OUTAGE, place="my_agents.py:17", message=f"no {text}", traceback=_TRACE)
    stage.books.fail(stage.run("gem", dispatch_id), fault)
    assert stage.books.state(dispatch_id) == "retrying"
    return dispatch_id


def record(stage: Backstage, dispatch_id: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{stage.url}dispatches/{dispatch_id}").json()
    return found


def test_each_failed_attempt_has_its_traceback_unless_content_is_hidden(
    stage: Backstage, page: Page
) -> None:
    dispatch_id = failed(stage, "shard")
    assert httpx.post(f"{stage.url}dispatches/{dispatch_id}/retry").is_success
    stage.books.fail(stage.run("gem", dispatch_id), FOR_GOOD)
    watched(page, f"{stage.url}#/dispatch/{dispatch_id}")
    attempts = detail(page).locator(".failure")
    expect(attempts).to_have_count(2)
    expect(attempts.first).to_contain_text("Attempt 1")
    expect(attempts.first).to_contain_text("Outage · my_agents.py:17: the provider is away")
    expect(attempts.first.locator("pre")).to_have_text(f"no shard\n\n{_TRACE}")
    expect(attempts.last).to_contain_text("no such model")
    page.keyboard.press("h")
    expect(attempts.first).to_contain_text("the provider is away")
    expect(attempts.locator("pre")).to_have_count(0)


def test_a_failed_attempt_is_tried_again_at_once_by_keyboard(stage: Backstage, page: Page) -> None:
    dispatch_id = failed(stage, "index")
    watched(page, f"{stage.url}#/dispatch/{dispatch_id}")
    expect(detail(page)).to_contain_text("retrying")
    detail(page).get_by_role("button", name="Retry now").focus()
    page.keyboard.press("Enter")
    expect(detail(page).locator(".lead")).to_contain_text("queued")
    assert stage.books.state(dispatch_id) == "queued"
    expect(page.locator("#toasts")).to_contain_text(f"{dispatch_id[:8]} is queued.")


def test_several_are_retried_and_dead_letters_replayed_together(
    stage: Backstage, page: Page
) -> None:
    ids = [failed(stage, f"part {number}") for number in range(2)]
    watched(page, f"{stage.url}#/dispatches?agent=gem")
    for dispatch_id in ids:
        page.get_by_role("checkbox", name=f"Select {dispatch_id[:8]}").check()
    page.get_by_role("button", name="Retry now 2").click()
    page.locator("dialog").get_by_role("button", name="Retry now 2 dispatches").click()
    expect(page.locator("#toasts")).to_contain_text("Retry now: 2 of 2 dispatches.")
    assert [stage.books.state(one) for one in ids] == ["queued", "queued"]
    dead = [stage.dead_letter("scout") for _ in range(2)]
    page.goto(f"{stage.url}#/dead")
    for dispatch_id in dead:
        expect(page.locator(f"#row-{dispatch_id}")).to_be_visible()
    page.get_by_role("button", name="Replay all").click()
    page.locator("dialog").get_by_role("button", name=re.compile(r"^Replay \d+")).click()
    for dispatch_id in dead:
        expect(page.locator(f"#row-{dispatch_id}")).to_have_count(0)
    assert [stage.books.state(one) for one in dead] == ["queued", "queued"]
    # Nothing is left to replay, and no button says otherwise.
    expect(page.locator("#hint")).to_contain_text("No dead letters.")
    expect(page.get_by_role("button", name="Replay all")).to_have_count(0)


def test_a_resent_event_and_the_old_one_link_to_each_other(stage: Backstage, page: Page) -> None:
    (old,) = stage.books.accept("mini", "How many tests are slow?", session="tests")
    watched(page, f"{stage.url}#/dispatches")
    page.locator("#list").focus()
    page.keyboard.press("j")
    page.keyboard.press("e")
    text = page.get_by_role("textbox", name="Text")
    expect(text).to_have_value("How many tests are slow?")
    page.get_by_role("textbox", name="Session").fill("")
    text.press("Control+Enter")
    page.wait_for_url(re.compile("#/dispatch/"))
    new = page.url.rpartition("/")[2]
    # A session that was taken away is not the old one's.
    assert "session" not in record(stage, new)
    detail(page).get_by_role("link", name=old[:8]).click()
    expect(page).to_have_url(re.compile(f"{old}$"))
    detail(page).get_by_role("link", name=new[:8]).click()
    expect(page).to_have_url(re.compile(f"{new}$"))
    assert record(stage, new)["resent_from"] == old


def test_an_alert_is_seen_silenced_and_told_again(stage: Backstage, page: Page) -> None:
    stage.dead_letter("scout")
    alerter = Alerter(lambda: stage.books.store, stage.books.settings)
    stage.books.store.client.delete(keys.turn("alerts"))
    alerter.check()
    watched(page, f"{stage.url}#/fleet")
    expect(page.locator("#count-alerts")).not_to_have_text("")
    alert = page.get_by_role("region", name="Alerts").get_by_role("listitem")
    # Earlier ones may be over.
    dead = alert.filter(has_text="dead_letters · scout").filter(has_text="! open")
    dead.get_by_role("button", name="Seen: dead_letters · scout").click()
    expect(dead).to_contain_text("seen by http")
    expect(dead.get_by_role("button", name="Seen")).to_have_count(0)
    dead.get_by_role("button", name="Silence 1 h: dead_letters · scout").press("Enter")
    expect(dead).to_contain_text("silent until")
    dead.get_by_role("button", name="Tell again: dead_letters · scout").press("Enter")
    expect(dead).not_to_contain_text("silent until")
    found = httpx.get(f"{stage.url}alerts").json()["open"]
    wanted = ("dead_letters", "scout")
    (one,) = [alert for alert in found if (alert["name"], alert["agent"]) == wanted]
    assert one["acknowledged"]["by"] == "http"
    assert not one.get("silenced")


def test_an_open_breaker_says_what_it_stops_and_until_when(stage: Backstage, page: Page) -> None:
    settings = BreakerConfig(failure_threshold=1, reset_timeout_s=300)
    providers = Providers(lambda: stage.books.store, settings, "archie")
    model = "anthropic/claude-sonnet-4-5"
    providers.wait_s(model, "", 1)
    providers.report(model, "", "failed", "no server listens")
    watched(page, f"{stage.url}#/agent/archie")
    expect(detail(page)).to_contain_text(re.compile(rf"{model}: open, tried in \d min"))
    figure = page.locator('[data-figure="breakers"] dd')
    expect(figure).to_have_text("1 open")
    page.keyboard.press("6")
    breakers = page.get_by_role("region", name="Providers and breakers")
    expect(breakers).to_contain_text(re.compile(r"✕ open, tried in \d min"))
    expect(breakers).to_contain_text("no server listens; stops archie")
    providers.report(model, "", "ok")


@pytest.mark.parametrize(
    ("field", "given", "said"),
    [
        ("To", "nobody", "nobody"),
        ("To", "chain:none", "none"),
        ("To", "human:ops", "human:ops"),
        ("Text", "x" * (EVENT_BYTES_MAX + 1), "larger"),
        ("Text", "   ", "text"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_words_and_kept(
    stage: Backstage, page: Page, field: str, given: str, said: str
) -> None:
    watched(page, stage.url)
    page.keyboard.press("n")
    page.get_by_role("combobox", name="To").fill("mini")
    page.get_by_role("textbox", name="Text").fill("hello")
    page.get_by_label(field, exact=True).fill(given)
    page.get_by_role("textbox", name="Text").press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text(said)
    expect(page.get_by_label(field, exact=True)).to_have_value(given)
    page.get_by_role("button", name="Leave it").press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_an_event_is_sent_once_the_connection_is_back(
    stage: Backstage, page: Page, browser: Browser
) -> None:
    watched(page, stage.url)
    page.keyboard.press("n")
    page.get_by_role("combobox", name="To").fill("mini")
    text = page.get_by_role("textbox", name="Text")
    text.fill("over the gap")
    page.context.set_offline(True)
    text.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("The API cannot be reached.")
    page.context.set_offline(False)
    text.press("Control+Enter")
    page.wait_for_url(re.compile("#/dispatch/"))
    expect(detail(page)).to_contain_text("over the gap")


@pytest.mark.parametrize("view", ["dispatches", "sessions"])
def test_a_list_that_could_not_be_fetched_does_not_say_that_it_is_empty(
    stage: Backstage, page: Page, view: str
) -> None:
    page.route(re.compile(rf"/{view}\?"), lambda route: route.abort())
    watched(page, f"{stage.url}#/{view}")
    expect(page.locator("#hint")).to_contain_text("could not be fetched. The API cannot be reached")
    page.unroute_all()
    page.keyboard.press("1")
    page.keyboard.press("5" if view == "sessions" else "2")
    expect(page.locator("#hint")).to_be_empty()
    expect(page.locator("#rows > [role=row]").first).to_be_visible()


def test_a_token_without_a_scope_or_no_longer_valid_is_told(
    own_server: Valkey, tmp_path: Path, page: Page
) -> None:
    closed = Backstage(tmp_path, own_server, ["archie", "gem"])
    store = closed.books.store
    _, secret = tokens.create(store, "reader", ("read:archie",))
    (own,) = closed.books.accept("archie", "only for archie")
    closed.books.accept("gem", "only for gem")
    closed.start()
    try:
        page.goto(f"{closed.url}#/dispatches")
        page.get_by_role("textbox", name="Token").fill(secret)
        page.keyboard.press("Enter")
        page.get_by_text("● live").wait_for()
        expect(page.locator(f"#row-{own}")).to_be_visible()
        expect(page.locator("#list")).not_to_contain_text("only for gem")
        page.keyboard.press("j")
        page.keyboard.press("c")
        page.keyboard.press("Enter")
        expect(page.locator("#toasts")).to_contain_text("operate")
        assert closed.books.state(own) == "queued"
        page.keyboard.press("n")
        page.get_by_role("combobox", name="To").fill("archie")
        page.get_by_role("textbox", name="Text").fill("hello")
        page.keyboard.press("Control+Enter")
        expect(page.get_by_role("alert")).to_contain_text("send:archie")
        page.keyboard.press("Escape")
        for known in tokens.read_all(store):
            tokens.revoke(store, known)
        _, other = tokens.create(store, "operator", ("admin",))
        # What was valid is not any more: the page asks for another, and goes on.
        asked = page.get_by_role("dialog", name="This fleet asks for a token")
        asked.get_by_role("textbox", name="Token").fill(other)
        page.keyboard.press("Enter")
        page.get_by_text("● live").wait_for()
        expect(page.locator("#list")).to_contain_text("only for gem")
    finally:
        closed.close()
