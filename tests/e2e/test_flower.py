"""Flower, looked at as a person would: each agent's worker, its tasks, and no word of a prompt."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.e2e.running import Place, place
from tests.fixtures.containers import free_port
from tests.fixtures.processes import wait_until

CHROMIUM = shutil.which("chromium")
SECRET = "the launch code is 31415"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]


@pytest.fixture
def page() -> Iterator[Page]:
    """A headless browser that asks nothing of the outside."""
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    quiet += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser.new_page()
        browser.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Place]:
    """Two agents with Flower beside them."""
    flower = f"[flower]\nport = {free_port()}\n"
    agents = '[agents.archie]\nmodel = "echo/brief"\n[agents.gem]\nmodel = "echo/brief"\n'
    with place(tmp_path, f"[api]\nport = 0\n{flower}{agents}") as found:
        found.up()
        yield found
        assert found.stop() == 0


def flower_url(fleet: Place) -> str:
    """What `fleet up` says."""
    found = re.search(r"flower (http://\S+)", fleet.said)
    assert found, fleet.said
    return found.group(1)


def test_the_workers_and_their_tasks_are_there_and_no_prompt(fleet: Place, page: Page) -> None:
    url = flower_url(fleet)
    sent = fleet.fleet("send", SECRET, "--to", "archie", "--wait", "--json")
    assert sent.code == 0, sent.err
    dispatch_id = json.loads(fleet.fleet("queue", "list", "--json").out)["dispatches"][0]
    page.goto(f"{url}/workers")
    for agent in ("archie", "gem"):
        page.get_by_text(re.compile(rf"^{agent}@")).first.wait_for(timeout=30_000)
    assert SECRET not in page.content()

    def task_is_listed() -> bool:
        page.goto(f"{url}/tasks")
        page.wait_for_load_state("networkidle")
        return dispatch_id["dispatch_id"] in page.content()

    wait_until(task_is_listed, 30)
    assert SECRET not in page.content()
    page.goto(f"{url}/task/{dispatch_id['dispatch_id']}")
    page.get_by_text("fleet.dispatch").first.wait_for(timeout=10_000)
    assert SECRET not in page.content()
    assert "31415" not in page.content()
