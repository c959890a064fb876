"""`fleet up` where the machine or the broker gives little: one sentence, or it works."""

import resource
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest
import redis

from fleet.broker.room import OF_A_FLEET, OF_AN_AGENT
from tests.e2e.running import HEAD, UP_S, Place, place
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey


def of_agents(number: int, head: str = HEAD) -> str:
    return head + "".join(f'[agents.a{n}]\nmodel = "echo/brief"\n' for n in range(number))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    (tmp_path / "server").mkdir()
    server = Valkey(tmp_path / "server").start()
    yield server
    server.kill()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def head_of(server: Valkey) -> str:
    return HEAD.replace("[fleet]", f'[fleet]\nbroker_url = "{server.url}"')


def test_a_broker_for_too_few_clients_is_refused_in_one_sentence(
    server: Valkey, here: Path
) -> None:
    with redis.Redis(port=server.port) as client:
        client.config_set("maxclients", 100)
    with place(here, of_agents(20, head_of(server))) as found:
        refused = found.fleet("up")
        assert refused.code == 1
        assert "fleet.broker_url: the broker takes 100 clients" in refused.err
        assert "a fleet of 20 agents needs about 200" in refused.err
        told = [row["what"] for row in found.fleet("doctor", "--json").json["findings"]]
        assert any(what.startswith("the broker takes 100 clients") for what in told)


def test_an_agent_has_no_more_connections_than_are_counted(server: Valkey, here: Path) -> None:
    agents = 3
    with place(here, of_agents(agents, head_of(server))) as found:
        found.up()
        for number in range(agents):
            found.outcome("x", "--to", f"a{number}")
        # Those that Celery opens for its start are closed a moment later.
        wait_until(lambda: max(per_agent(found, server.port)) <= OF_AN_AGENT, UP_S)
        with redis.Redis(port=server.port) as client:
            assert len(client.client_list()) <= OF_AN_AGENT * agents + OF_A_FLEET
        assert found.stop() == 0


def per_agent(found: Place, port: int) -> list[int]:
    """The connections to the broker of each agent: of its worker and of the worker's child."""
    hosts = [one for one in found.living() if one.cmdline()[-2:] == ["fleet", "host"]]
    (host,) = [one for one in hosts if one.parent() not in hosts]
    workers = [one for one in host.children() if one.children()]
    return [sum(connections(part, port) for part in (w, *w.children())) for w in workers]


def connections(process: "psutil.Process", port: int) -> int:
    return sum(bool(one.raddr) and one.raddr.port == port for one in process.net_connections())


def test_a_low_limit_of_files_is_raised(here: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with place(here, of_agents(1)) as found:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        try:
            found.up()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert found.outcome("x", "--to", "a0")["state"] == "completed"
        assert found.stop() == 0


def test_a_hard_limit_of_files_that_is_too_low_is_refused_in_one_sentence(here: Path) -> None:
    with place(here, of_agents(2)) as found:
        script = here / "python"
        script.write_text(f'#!/bin/sh\nulimit -n 64\nexec {found.python} "$@"\n')
        script.chmod(0o700)
        found.python = script
        refused = found.fleet("up")
        assert refused.code == 1
        assert refused.one_sentence().startswith("A process may open 64 files here")


def test_no_home_and_no_folder_for_temporary_files_are_needed(here: Path) -> None:
    nowhere = dict.fromkeys(("HOME", "TMPDIR", "TMP", "TEMP", "XDG_CACHE_HOME"), "/not/there")
    with place(here, of_agents(1), nowhere) as found:
        found.up()
        assert found.outcome("x", "--to", "a0")["state"] == "completed"
        assert found.stop() == 0
