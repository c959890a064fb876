"""The page `/docs` in a real browser: shown under its policy, and a call of it works."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from fleet.store import Store
from tests.e2e.console import CHROMIUM, NEEDED, Backstage, chromium
from tests.fixtures.valkey import Valkey

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason=NEEDED),
]
PATIENCE_MS = 30_000


def test_a_call_is_tried_from_the_page(tmp_path: Path, valkey: Valkey, store: Store) -> None:
    stage = Backstage(tmp_path, valkey, ["archie"])
    stage.start()
    try:
        with chromium() as browser:
            page = browser.new_page()
            said: list[str] = []
            asked: list[str] = []
            page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"{stage.url}docs")
            call = page.locator("#operations-agents-find_agents")
            call.get_by_role("button").first.click(timeout=PATIENCE_MS)
            call.get_by_role("button", name="Try it out").click(timeout=PATIENCE_MS)
            call.get_by_role("button", name="Execute").click(timeout=PATIENCE_MS)
            answer = call.locator(".live-responses-table tbody .response-col_status").first
            expect(answer).to_contain_text("200", timeout=PATIENCE_MS)
            expect(call.locator(".live-responses-table")).to_contain_text('"archie"')
            assert not [line for line in said if line.startswith("error")], said
            assert {url for url in asked if not url.startswith(stage.url)} <= {
                url for url in asked if url.startswith("data:")
            }
    finally:
        stage.close()
