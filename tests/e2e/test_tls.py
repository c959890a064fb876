"""A fleet whose broker is reached by TLS only: it works, and a bad certificate is one sentence."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from celery import Celery

from fleet.locks import SessionLock
from fleet.store import open_store
from fleet.store.address import plain_url, store_url
from fleet.store.wakeup import INTAKE_TASK
from tests.e2e.running import HEAD, UP_S, Place, place
from tests.fixtures.fleet import CELERY, READY, START_S, Fleet
from tests.fixtures.processes import no_leftovers, wait_until
from tests.fixtures.tls import DAY, Authority, Pair, TlsValkey
from tests.fixtures.valkey import Valkey, free_port

__all__ = ["no_leftovers"]

pytestmark = pytest.mark.timeout(400)

AGENTS = """
[agents.a]
runner = "python"
python = "nowhere:a"
"""


@dataclass(frozen=True)
class Papers:
    """An authority, another that nobody trusts, and what the first has issued."""

    folder: Path
    authority: Authority
    other: Authority
    server: Pair
    client: Pair

    def query(self, *, authority: Path | None = None, client: Pair | None = None) -> str:
        """The words of a URL."""
        words = f"?ssl_cert_reqs=required&ssl_ca_certs={authority or self.authority.file}"
        return words + (f"&ssl_certfile={client.cert}&ssl_keyfile={client.key}" if client else "")


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    ours = Authority(folder)
    other = Authority(folder, "another")
    return Papers(folder, ours, other, ours.issue("server"), ours.issue("client"))


@pytest.fixture
def server(papers: Papers, tmp_path: Path) -> Iterator[TlsValkey]:
    """A server that demands a certificate of its clients, with a URL that names one."""
    words = papers.query(client=papers.client)
    behind = TlsValkey(tmp_path, papers.server, words, clients=papers.authority.file)
    with behind.running() as running:
        yield running


def test_every_client_of_a_fleet_works_by_tls_with_certificates(
    no_leftovers: str, server: TlsValkey, tmp_path: Path
) -> None:
    port = free_port()
    (tmp_path / "fleet").mkdir()
    fleet = Fleet(tmp_path / "fleet", server, {"a": {}}, {"flower": {"port": port}})
    fleet_command = (sys.executable, "-m", "fleet")
    try:
        beat = fleet.start("beat", str(CELERY), "-A", "fleet", "beat")
        fleet.shared().wait_said(READY)
        fleet.ready("a")

        sent = fleet.start("send", *fleet_command, "send", "say by the CLI", "--to", "a", "--wait")
        assert sent.wait(START_S) == 0, sent.said()
        assert "by the CLI" in sent.said()

        url = plain_url(fleet.settings)
        with Celery(broker=url, backend=url, set_as_current=False) as producer:
            event = {"to": "a", "text": "say by Celery"}
            answer = producer.send_task(INTAKE_TASK, [event], queue="intake").get(timeout=START_S)
        fleet.wait_state(answer["dispatches"][0]["dispatch_id"], "completed")

        store = open_store(store_url(fleet.settings))
        asyncio.run(_lock(SessionLock(store, "s", "t")))
        store.close()

        doctor = fleet.start("doctor", *fleet_command, "doctor")
        doctor.wait(START_S)
        assert "encrypted" not in doctor.said()
        assert "certificate of" in doctor.said(), "it ends tomorrow"

        fleet.start(
            "flower",
            *(str(CELERY), "-A", "fleet", "flower", "--address=127.0.0.1", f"--port={port}"),
        )
        wait_until(lambda: "agent.a" in _page(f"http://127.0.0.1:{port}/broker"), UP_S)
        assert beat.alive
    finally:
        fleet.close()


async def _lock(lock: SessionLock) -> None:
    async with lock:
        assert lock.count == 1


def _page(url: str) -> str:
    try:
        return httpx.get(url, timeout=10, trust_env=False).text
    except httpx.TransportError:
        return ""


def faults(papers: Papers) -> dict[str, tuple[Pair, str, Path | None, str]]:
    """Server's pair, words of the URL, authority of clients; what is said of them."""
    good, words, authority = papers.server, papers.query(), papers.authority.file
    stranger = papers.other.issue("stranger")
    return {
        "wrong authority": (
            *(good, papers.query(authority=papers.other.file), None),
            "name the file of its authority by ssl_ca_certs",
        ),
        "no authority": (good, "", None, "name the file of its authority by ssl_ca_certs"),
        "expired": (
            *(papers.authority.issue("old", lasts=-DAY), words, None),
            "renew it",
        ),
        "another host's": (
            *(papers.authority.issue("elsewhere", "store.example"), words, None),
            "address it by a name that is in it",
        ),
        "no client's certificate": (
            *(good, words, authority),
            "name one by ssl_certfile and ssl_keyfile",
        ),
        "a stranger's certificate": (
            *(good, papers.query(client=stranger), authority),
            "does not accept this client's certificate",
        ),
    }


@pytest.mark.parametrize(
    "fault",
    [
        *("wrong authority", "no authority", "expired", "another host's"),
        *("no client's certificate", "a stranger's certificate"),
    ],
)
def test_a_certificate_that_does_not_fit_is_one_sentence_and_nothing_is_spooled(
    papers: Papers, tmp_path: Path, fault: str
) -> None:
    pair, words, clients, says = faults(papers)[fault]
    behind = TlsValkey(tmp_path, pair, words, clients)
    with behind.running() as server:
        config = HEAD.replace("[fleet]", f'[fleet]\nbroker_url = "{server.url}"') + AGENTS
        (tmp_path / "here").mkdir()
        with place(tmp_path / "here", config) as here:
            # Twice: the second finds the breaker open.
            for _ in range(2):
                sent = here.fleet("send", "hello", "--to", "a")
                assert sent.code == 1
                sentence = sent.one_sentence()
                assert sentence.startswith("fleet.broker_url")
                assert urlsplit(server.url).netloc in sentence
                assert says in sentence
            doctor = here.fleet("doctor")
            assert doctor.code == 1
            assert says in doctor.out
            assert _spooled(here) == 0


def test_a_worker_that_waits_says_which_certificate_is_at_fault(
    no_leftovers: str, papers: Papers, tmp_path: Path
) -> None:
    words = papers.query(authority=papers.other.file)
    with TlsValkey(tmp_path, papers.server, words).running() as server:
        (tmp_path / "fleet").mkdir()
        fleet = Fleet(tmp_path / "fleet", server, {"a": {}})
        try:
            fleet.worker("a").wait_said("name the file of its authority by ssl_ca_certs")
        finally:
            fleet.close()


def _spooled(here: Place) -> int:
    spool = here.folder / ".fleet" / "spool"
    return sum(path.stat().st_size for path in spool.rglob("*.log")) if spool.exists() else 0


def test_a_server_without_tls_is_named_or_silent_but_never_waited_for(tmp_path: Path) -> None:
    server = Valkey(tmp_path).start()
    try:
        url = server.url.replace("redis://", "rediss://")
        config = HEAD.replace("[fleet]", f'[fleet]\nbroker_url = "{url}"') + AGENTS
        (tmp_path / "here").mkdir()
        with place(tmp_path / "here", config) as here:
            done = here.fleet("send", "hello", "--to", "a")
            assert done.code == 1
            assert "fleet.broker_url" in done.err or "does not answer" in done.err
    finally:
        server.kill()
