"""The broker goes away under a real API process: events are spooled, and run once."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fleet.store import Store, keys, open_store
from tests.fixtures.processes import wait_until
from tests.fixtures.tls import Authority, TlsValkey
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import Api, MakeApi

#: So that a test need not wait half a minute for a probe.
QUICK = {"FLEET_BREAKER__RESET_TIMEOUT_S": "0.5"}
TIMEOUT_S = 30.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    """A server that a test may ill-treat."""
    started = Valkey(tmp_path, durable=True).start()
    yield started
    started.resume()
    started.kill()


@pytest.fixture
def ledger(server: Valkey) -> Iterator[Store]:
    opened = open_store(server.url)
    yield opened
    opened.close()


def gate(api: Api) -> dict[str, Any]:
    document: dict[str, Any] = api.http.get("/health").json()
    return dict(document["g4"])


def all_imported(api: Api) -> None:
    wait_until(lambda: gate(api)["spooled"] == 0, TIMEOUT_S)
    wait_until(lambda: gate(api)["breaker"] == "closed", TIMEOUT_S)


def order_of(store: Store) -> list[str]:
    """The ids of all events, as the ledger accepted them."""
    rows: Any = store.client.zrange(keys.INDEX, 0, -1)
    return [str(store.client.hget(keys.dispatch(row), "event_id")) for row in rows]


def bus_of(store: Store, *types: str) -> list[dict[str, str]]:
    rows: Any = store.client.xrange(keys.BUS)
    return [fields for _, fields in rows if fields["type"] in types]


def fleet_send(api: Api, number: int, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The command, beside an API on the same data folder."""
    config = str(api.data_dir.parent / "fleet.toml")
    return subprocess.run(
        [
            *(sys.executable, "-m", "fleet", "send", "hello", "--json"),
            *("--idempotency-key", f"e{number}"),
        ],
        env={**os.environ, "FLEET_CONFIG": config, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_events_sent_without_a_broker_are_spooled_in_order(
    make_api: MakeApi, server: Valkey, ledger: Store
) -> None:
    api = make_api(server.url, **QUICK)
    before = api.send(id="e0").json()
    server.kill()
    answers = [api.send(id=f"e{number}") for number in range(1, 8)]
    assert {answer.status_code for answer in answers} == {202}
    assert api.send(id="e3").json() == {**answers[2].json(), "duplicate": True}
    # Here nobody can know; when the broker is back it turns out to be known.
    assert api.send(id="e0").json()["dispatches"] == before["dispatches"]
    assert api.http.get("/readyz").status_code == 200
    wait_until(lambda: gate(api)["breaker"] != "closed", TIMEOUT_S)
    assert gate(api)["spooled"] == 8
    figures = api.http.get("/metrics").text
    assert "fleet_breaker_open 1.0" in figures
    assert "fleet_spooled 8.0" in figures
    assert api.http.get("/health").status_code == 503
    server.start()
    all_imported(api)
    assert order_of(ledger) == [f"e{number}" for number in range(8)]
    for answer in (*answers, api.send(id="e8")):
        for dispatch in answer.json()["dispatches"]:
            assert ledger.client.hget(keys.dispatch(dispatch["dispatch_id"]), "state") == "queued"
    assert len(bus_of(ledger, "event_accepted")) == 9
    opened, closed = bus_of(ledger, "breaker_opened", "breaker_closed")
    assert (opened["type"], closed["type"]) == ("breaker_opened", "breaker_closed")
    assert float(closed["elapsed_s"]) > 0


def test_a_command_waits_for_an_api_that_starts_again(
    make_api: MakeApi, server: Valkey, ledger: Store
) -> None:
    api = make_api(server.url, **QUICK)
    server.kill()
    assert api.send(id="e0").status_code == 202
    api.process.kill()
    api.process.communicate()
    with ThreadPoolExecutor() as threads:
        sent = threads.submit(fleet_send, api, 1)
        again = Api(api.data_dir.parent, server.url, **QUICK)
        try:
            assert sent.result().returncode == 0, sent.result().stderr
            server.start()
            all_imported(again)
        finally:
            again.close()
    assert order_of(ledger) == ["e0", "e1"]


@pytest.mark.parametrize("target", ["chain:review", "chain:people"])
def test_the_ids_are_those_that_the_ledger_uses(
    make_api: MakeApi, server: Valkey, ledger: Store, target: str
) -> None:
    chains = {"review": {"stages": ["@reviewers", "archie"]}, "people": {"stages": ["human:ops"]}}
    api = make_api(server.url, FLEET_CHAINS=json.dumps(chains), **QUICK)
    server.kill()
    kept = api.send(id="e0", to=target)
    assert kept.status_code == 202
    server.start()
    all_imported(api)
    known = api.send(id="e0", to=target)
    assert known.json() == {**kept.json(), "duplicate": True}
    assert known.json()["dispatches"]


def test_a_wrong_password_opens_it_at_once_and_the_right_one_closes_it(
    make_api: MakeApi, server: Valkey, ledger: Store
) -> None:
    api = make_api(server.url, **QUICK)
    ledger.client.config_set("requirepass", "other")
    ledger.client.client_kill_filter(_type="normal", skipme=True)
    assert api.send(id="e0").status_code == 202
    wait_until(lambda: gate(api)["breaker"] != "closed", TIMEOUT_S)
    ledger.client.execute_command("AUTH", "other")
    ledger.client.config_set("requirepass", "")
    all_imported(api)
    assert order_of(ledger) == ["e0"]


def test_a_wrong_password_or_address_of_one_caller_is_its_own_fault(
    make_api: MakeApi, server: Valkey, ledger: Store, tmp_path: Path
) -> None:
    """Its event is not left in the spool of the fleet of that folder, which stays well."""
    ledger.client.config_set("requirepass", "right")
    right = server.url.replace("://", "://:right@")
    data = {"FLEET_DATA_DIR": str(tmp_path / "shared"), "FLEET_SPOOL__DIRECT": "true"}
    api = make_api(right, **data)
    assert api.send(id="e0").status_code == 202
    wrong = server.url.replace("://", "://:wrong@")
    elsewhere = "redis://:right@127.0.0.1:1/0"
    for url, says in ((wrong, "password"), (wrong, "password"), (elsewhere, "broker")):
        done = fleet_send(api, 1, **data, FLEET_BROKER_URL=url)
        assert done.returncode == 1, done.stdout
        assert says in done.stderr
    assert (gate(api)["breaker"], gate(api)["spooled"]) == ("closed", 0)
    assert fleet_send(api, 2, **data).returncode == 0
    ledger.client.execute_command("AUTH", "right")
    assert order_of(ledger) == ["e0", "e2"]


def test_a_wrong_certificate_of_one_caller_is_its_own_fault(
    make_api: MakeApi, tmp_path: Path
) -> None:
    """As a wrong password: its event is not left in the spool of a fleet that is well."""
    ours, another = Authority(tmp_path), Authority(tmp_path, "another")
    words = f"?ssl_ca_certs={ours.file}"
    data = {"FLEET_DATA_DIR": str(tmp_path / "shared"), "FLEET_SPOOL__DIRECT": "true"}
    with TlsValkey(tmp_path, ours.issue("server"), words).running() as server:
        api = make_api(server.url, **data)
        assert api.send(id="e0").status_code == 202
        wrong = server.url.replace(str(ours.file), str(another.file))
        for _ in range(2):
            done = fleet_send(api, 1, **data, FLEET_BROKER_URL=wrong)
            assert done.returncode == 1, done.stdout
            assert "ssl_ca_certs" in done.stderr
        assert (gate(api)["breaker"], gate(api)["spooled"]) == ("closed", 0)
        assert fleet_send(api, 2, **data).returncode == 0


def test_after_a_kill_in_mid_spooling_the_next_api_imports(
    make_api: MakeApi, server: Valkey, ledger: Store, tmp_path: Path
) -> None:
    data = {"FLEET_DATA_DIR": str(tmp_path / "shared"), **QUICK}
    api = make_api(server.url, **data)
    server.kill()
    batch = [{"id": f"e{n}", "text": "hello"} for n in range(20)]
    assert api.http.post("/events", json=batch).status_code == 202
    api.process.kill()
    api.process.communicate()
    server.start()
    later = make_api(server.url, **data)
    all_imported(later)
    assert order_of(ledger) == [f"e{n}" for n in range(20)]


def test_events_spooled_after_fleet_send_came_and_went_survive_a_kill(
    make_api: MakeApi, server: Valkey, ledger: Store, tmp_path: Path
) -> None:
    """The API has the spool open more than once, and the command closes it."""
    data = {"FLEET_DATA_DIR": str(tmp_path / "shared"), **QUICK}
    api = make_api(server.url, **data)
    server.kill()
    for number in range(0, 16, 4):
        assert {api.send(id=f"e{number + n}").status_code for n in range(3)} == {202}
        assert fleet_send(api, number + 3, **data).returncode == 0
    assert api.send(id="e16").status_code == 202
    api.process.kill()
    api.process.communicate()
    server.start()
    later = make_api(server.url, **data)
    all_imported(later)
    assert order_of(ledger) == [f"e{n}" for n in range(17)]


def test_a_full_spool_answers_so_and_notifies_the_bus(
    make_api: MakeApi, server: Valkey, ledger: Store
) -> None:
    api = make_api(server.url, FLEET_SPOOL__MAX_EVENTS="2", **QUICK)
    server.kill()
    assert [api.send(id=f"e{n}").status_code for n in range(2)] == [202, 202]
    answer = api.send(id="e2")
    assert answer.status_code == 503
    assert "spool.max_events" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) >= 1
    assert api.http.get("/readyz").status_code == 503
    server.start()
    all_imported(api)
    assert order_of(ledger) == ["e0", "e1"]
    wait_until(
        lambda: [one["name"] for one in bus_of(ledger, "alert")].count("spool_refused") == 1,
        TIMEOUT_S,
    )
    assert api.send(id="e2").status_code == 202


def test_fleet_send_spools_too_where_the_api_runs(
    make_api: MakeApi, server: Valkey, ledger: Store
) -> None:
    api = make_api(server.url, **QUICK)
    server.kill()
    done = fleet_send(api, 1)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dispatches"]
    assert gate(api)["spooled"] == 1
    server.start()
    all_imported(api)
    assert order_of(ledger) == ["e1"]
    api.end()
    server.kill()
    done = fleet_send(api, 2)
    assert done.returncode == 1, "nobody would hand it over"
    assert "--idempotency-key e2" in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", disk],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs (root on Linux)")
    yield disk
    subprocess.run(["umount", "-l", disk], capture_output=True, check=True)


def test_a_full_disk_under_the_spool_refuses_and_loses_nothing(
    make_api: MakeApi, server: Valkey, ledger: Store, small_disk: Path
) -> None:
    api = make_api(server.url, FLEET_DATA_DIR=str(small_disk), **QUICK)
    server.kill()
    answers = {f"e{n}": api.send(id=f"e{n}", text="x" * 20_000) for n in range(100)}
    kept = [name for name, answer in answers.items() if answer.status_code == 202]
    refused = [answer for answer in answers.values() if answer.status_code == 503]
    assert kept
    assert len(kept) + len(refused) == len(answers)
    assert all("disk" in answer.json()["detail"] for answer in refused)
    assert refused
    server.start()
    all_imported(api)
    assert order_of(ledger) == kept
    wait_until(lambda: api.send(id="later").status_code == 202, TIMEOUT_S)
    wait_until(lambda: order_of(ledger) == [*kept, "later"])
