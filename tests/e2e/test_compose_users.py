"""The processes of the compose file with Valkey's users: each does its work, and nothing else."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from fleet.errors import BrokerRefusal
from fleet.ledger import bus
from fleet.store import open_store
from tests.e2e.running import UP_S
from tests.fixtures.composed import GuardedValkey, Secrets, command
from tests.fixtures.fleet import START_S, Fleet
from tests.fixtures.processes import no_leftovers, wait_until
from tests.fixtures.receiver import SECRET, Receiver, receiving
from tests.fixtures.valkey import free_port

__all__ = ["no_leftovers"]

pytestmark = pytest.mark.timeout(500)

#: As the image's own command runs an agent's worker.
WORKER = ("--without-mingle", "--without-gossip", "--heartbeat-interval", "20")


#: What the agent `guarded` calls.
LOCKING = """
from fleet import runtime
from fleet.locks import SessionLock

def write(path, fence, text):
    with SessionLock(runtime.current().store, "files", text), open(path, "w") as file:
        file.write(text)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GuardedValkey]:
    folder = tmp_path / "compose"
    folder.mkdir()
    started = GuardedValkey(tmp_path, Secrets.made_in(folder))
    started.start()
    yield started
    started.kill()


class Composed(Fleet):
    """A fleet of which each process has the variables of its service."""

    receiver: Receiver

    def service(self, name: str, *argv: str, **env: str) -> Any:
        """Start one, with another command where one is given."""
        assert isinstance(self.server, GuardedValkey)
        given = self.server.secrets.environment(name, self.server.place)
        data = {"FLEET_DATA_DIR": str(self.folder / f"data-{name}"), "FLEET_API__HOST": "127.0.0.1"}
        return self.start(name, *(argv or command(name)), **{**given, **data, **env})

    def fleet(self, *words: str, code: int = 0) -> str:
        """Run a `fleet` command in the API's container; what it prints."""
        done = self.service("api", sys.executable, "-m", "fleet", *words)
        assert done.wait(START_S) == code, done.said()
        return str(done.said())


def denied(server: GuardedValkey) -> list[Any]:
    """The refusals of Valkey, from its ACL LOG."""
    with server.client("admin") as admin:
        log: Any = admin.acl_log()
    return [(row["username"], row["reason"], row["object"], row["context"]) for row in log]


@pytest.fixture
def composed(server: GuardedValkey, tmp_path: Path) -> Iterator[Composed]:
    """Agents with a receiver and a chain; nothing of it is started yet."""
    retry = {"attempts": 2, "backoff_s": 0, "min_age_s": 0}
    (tmp_path / "fleet").mkdir()
    with receiving() as receiver:
        hook = {"webhook": receiver.url, "secret": SECRET, "allow_private": True}
        tables = {"a": {"deliver": ["hook"], "retry": retry, "stream": False}, "b": {}}
        sections: dict[str, dict[str, Any]] = {
            "api": {"port": free_port()},
            "flower": {"port": free_port()},
            "deliveries.hook": hook,
            "chains.both": {"stages": ["a", "b"]},
        }
        fleet = Composed(tmp_path / "fleet", server, tables, sections)
        fleet.receiver = receiver
        # Each process has a URL of its own, and nobody the operator's.
        config = tmp_path / "fleet" / "fleet.toml"
        (tmp_path / "fleet" / "guarded.py").write_text(LOCKING)
        config.write_text(config.read_text().replace(server.url, "redis://nowhere.invalid/0"))
        try:
            yield fleet
        finally:
            fleet.close()


def test_every_process_of_the_compose_file_works_with_its_user(
    no_leftovers: str, composed: Composed, server: GuardedValkey
) -> None:
    token = composed.fleet("token", "create", "me", "--scope", "admin").split()[0]
    start_all(composed)
    try:
        by_commands(composed)
        by_http(composed, token)
        by_flower(composed)
    finally:
        assert denied(server) == []


def start_all(fleet: Composed) -> None:
    """A process of each service, and workers of both agents."""
    celery = command("intake")[0]
    for name in ("intake", "delivery", "beat", "api"):
        fleet.service(name)
    for agent in ("a", "b"):
        more = ("-Q", f"agent.{agent}", "-c", "1", "-n", f"{agent}@%h", *WORKER)
        fleet.service("archie", celery, "-A", "fleet", "worker", *more)
    # The supervisor's address is the container's; the port is published on loopback.
    fleet.service("flower", *command("flower")[:2], "--address", "127.0.0.1")


def by_commands(fleet: Composed) -> None:
    """Act as an operator in the API's container."""
    for text, to in (("say hello", "a"), ("steps", "a"), ("say both", "chain:both")):
        fleet.fleet("send", text, "--to", to, "--session", "s", "--wait")
    fleet.open_gate("open")
    fleet.fleet("send", "guarded open", "--to", "a", "--wait")
    fleet.fleet("send", "fail", "--to", "a", "--wait", code=1)
    wait_until(lambda: len(fleet.receiver.seen) >= 3, START_S)
    fleet.fleet("agents", "pause", "b")
    fleet.fleet("send", "say later", "--to", "b")
    fleet.fleet("queue", "stats")
    fleet.fleet("agents", "resume", "b")
    for words in (("queue", "list"), ("dlq", "list"), ("dlq", "replay", "--all"), ("agents",)):
        fleet.fleet(*words)
    fleet.fleet("doctor", code=1)  # without AOF this test's server would lose events


def by_http(fleet: Composed, token: str) -> None:
    """Act as a client of the API."""
    url = f"http://127.0.0.1:{fleet.settings.api.port}"
    wait_until(lambda: _status(f"{url}/readyz") == 200, UP_S)
    assert _status(f"{url}/health") == 401
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
        sent = client.post(f"{url}/events", json={"to": "a", "text": "say by http"}).json()
        fleet.wait_state(sent["dispatches"][0]["dispatch_id"], "completed", START_S)
        ticket = client.post(f"{url}/tickets").json()["ticket"]
        assert client.get(f"{url}/agents").status_code == 200
        for path in ("health", "metrics", "dispatches", "agents/a"):
            assert client.get(f"{url}/{path}").status_code == 200
    with httpx.stream("GET", f"{url}/bus?ticket={ticket}&last-event-id=0-0", timeout=30) as bus:
        assert bus.status_code == 200
        assert next(bus.iter_lines())


def by_flower(fleet: Composed) -> None:
    """Look at Flower, which opens with its password only."""
    url = f"http://127.0.0.1:{fleet.settings.flower.port}"
    wait_until(lambda: _status(f"{url}/workers") == 401, UP_S)
    assert isinstance(fleet.server, GuardedValkey)
    login = ("fleet", fleet.server.secrets.variables["FLOWER_PASSWORD"])
    wait_until(lambda: "intake@" in httpx.get(f"{url}/workers", auth=login, timeout=30).text, UP_S)
    assert "agent.a" in httpx.get(f"{url}/broker", auth=login, timeout=30).text


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=10, trust_env=False).status_code
    except httpx.TransportError:
        return 0


#: What no process of a fleet needs: it would end, empty, read or rewrite the whole server.
NOBODYS = [
    *("FLUSHALL", "FLUSHDB", "SHUTDOWN NOSAVE", "KEYS *", "SCAN 0", "MONITOR", "ACL LIST", "SAVE"),
    *("CONFIG SET appendonly no", "DEBUG SLEEP 0", "MODULE LIST", "REPLICAOF NO ONE"),
    *(
        "FUNCTION LIST",
        "SWAPDB 0 1",
        "CLIENT KILL TYPE normal",
        "MIGRATE h 1 k 0 1",
        "BGREWRITEAOF",
    ),
]
ITS_OWN = {
    "api": "HGETALL fleet:tokens",
    "worker": "HGETALL fleet:agent:a",
    "beat": "LPUSH maintenance x",
    "flower": "LLEN agent.a",
}
ANOTHERS = {
    "api": ["GET other", "LPUSH intake x", "PUBLISH /0.celery.pidbox x"],
    "worker": ["HGETALL fleet:tokens", "GET fleet:ticket:x", "GET other", "PUBLISH news x"],
    "beat": ["HGETALL fleet:agent:a", "LPUSH agent.a x", "LRANGE maintenance 0 1"],
    "flower": ["HGETALL fleet:agent:a", "LPUSH agent.a x", "LRANGE agent.a 0 1"],
    "health": ["GET other", "INFO"],
}


@pytest.mark.parametrize("user", sorted(ANOTHERS))
def test_a_user_is_refused_what_is_not_its_own(server: GuardedValkey, user: str) -> None:
    with server.client(user) as client:
        if user in ITS_OWN:
            client.execute_command(*ITS_OWN[user].split())
        for words in (*NOBODYS, *ANOTHERS[user]):
            with pytest.raises(redis.ResponseError, match=r"permissions|DEBUG command not allowed"):
                client.execute_command(*words.split())


def test_a_right_that_is_missing_is_one_sentence(server: GuardedValkey) -> None:
    password = server.secrets.variables["VALKEY_BEAT_PASSWORD"]
    beat = open_store(f"redis://beat:{password}@{server.place}/0")
    with pytest.raises(BrokerRefusal, match=r"lacks a right \(.*\): give it the right"):
        bus.last_id(beat)
    beat.close()


def test_nobody_comes_in_without_a_name(server: GuardedValkey) -> None:
    with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_the_passwords_stay_and_one_whose_line_is_gone_is_made_anew(server: GuardedValkey) -> None:
    folder, before = server.secrets.folder, server.secrets.variables
    kept = [line for line in (folder / ".env").read_text().splitlines() if "BEAT" not in line]
    (folder / ".env").write_text("\n".join(["MINE=x", *kept]))
    subprocess.run(["sh", folder / "secrets.sh"], check=True, capture_output=True)
    after = server.secrets.variables
    assert {name for name in after if after[name] != before.get(name)} == {
        "MINE",
        "VALKEY_BEAT_PASSWORD",
    }
    assert (folder / ".env").stat().st_mode & 0o077 == 0
    hidden = [word for name, word in after.items() if name != "MINE"]
    assert not [word for word in hidden if word in server.secrets.users.read_text()]
