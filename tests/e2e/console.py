"""The console under test: a browser, an API on a Valkey, and a worker played by the test."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from fleet.config.settings import load
from fleet.ledger import Claim, views
from fleet.store import open_store
from fleet.worker.lease import Lease
from tests.fixtures.ledger import FOR_GOOD, Books
from tests.fixtures.valkey import Valkey, free_port

CHROMIUM = shutil.which("chromium")
NEEDED = "needs a browser: apt-get install chromium"
_QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
_AGENT = 'runner = "python"\npython = "a:b"\nmax_pending = 100000\n'


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's browser, headless."""
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=list(_QUIET))
        yield browser
        browser.close()


class Backstage:
    """A fleet of `agents` without workers: what happens to its dispatches, the test does itself.

    `agents` may map the names to their options.
    """

    def __init__(self, folder: Path, valkey: Valkey, agents: Iterable[str], more: str = "") -> None:
        options = agents if isinstance(agents, Mapping) else dict.fromkeys(agents, _AGENT)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._config = folder / "fleet.toml"
        self._config.write_text(
            f'[fleet]\nbroker_url = "{valkey.url}"\ndata_dir = "{folder / "data"}"\n'
            f"[api]\nport = {self.port}\n[bus]\nmax_length = 100000\n"
            + "".join(f"[agents.{name}]\n{text}" for name, text in options.items())
            + more
        )
        self.books = Books(open_store(valkey.url, bus_max_length=100_000), load(str(self._config)))
        self._leases: dict[str, Lease] = {}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Serve; returns when it does."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fleet", "api"],
            env={**os.environ, "FLEET_CONFIG": str(self._config), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert "The API is" in self._process.stdout.readline()

    def kill(self) -> None:
        """SIGKILL the API."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=10)

    def close(self) -> None:
        """Nothing is left."""
        self.kill()
        self.books.store.close()

    def lease(self, agent: str) -> Lease:
        """The agent's lease, which its worker would hold."""
        if agent not in self._leases:
            # Nobody renews it: it lasts for all tests of a file, however busy the machine is.
            lease = self.books.lease(agent, ttl_s=3600)
            assert lease.acquire()
            self._leases[agent] = lease
        return self._leases[agent]

    def run_next(self, agent: str) -> Claim:
        """Begin the agent's next turn."""
        return self.books.claimed(self.lease(agent))

    def find(self, **wanted: Any) -> list[dict[str, Any]]:
        """Dispatches of the ledger, newest first."""
        return views.find(self.books.store, **wanted).dispatches

    def run(self, agent: str, dispatch_id: str) -> Claim:
        """Begin this turn; those before it complete."""
        while (claim := self.run_next(agent)).dispatch_id != dispatch_id:
            self.books.complete(claim)
        return claim

    def dead_letter(self, agent: str) -> str:
        """The id of a dispatch that was given up."""
        (dispatch_id,) = self.books.accept(agent)
        self.books.fail(self.run(agent, dispatch_id), FOR_GOOD)
        assert self.books.state(dispatch_id) == "dead"
        return dispatch_id


def watched(page: Page, url: str) -> list[str]:
    """Open the console; the list gets what went wrong in the page, or was asked of another host."""
    wrong: list[str] = []
    origin = url.partition("#")[0]
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console",
        lambda said: wrong.append(said.text) if "Content Security" in said.text else None,
    )
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(origin) else wrong.append(asked.url),
    )
    page.goto(url)
    page.get_by_text("● live").wait_for()
    return wrong
