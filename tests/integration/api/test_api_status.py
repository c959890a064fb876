"""Health, probes and the address: what is told about the API, and by whom it may be used."""

import os
import re
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from fleet.ledger import bus
from fleet.ledger.bus import BusEvent
from fleet.store import Store, open_store
from fleet.system.api_address import read_address
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey, free_port
from tests.integration.api.conftest import NO_SPOOL, Api, MakeApi, away

PROBLEM = "application/problem+json"


def keys_of(document: Any) -> Any:
    """The names in a health document, apart from those of agents."""
    parts = {name: part for name, part in document.items() if isinstance(part, dict)}
    return {name: set(parts.get(name, ())) for name in document}


def test_health_has_live_values(api: Api) -> None:
    with api.follow():
        api.send(to="gem")
        answer = api.http.get("/health")
        health = answer.json()
    assert answer.status_code == 200
    assert health["status"] == "degraded"  # no worker and no beat run here
    assert health["g2"]["agents"]["gem"]["queued"] == 1
    assert health["saturation"]["queued"] >= 1
    assert health["bus"]["clients"] == 1
    assert health["bus"]["oldest_id"]


def test_who_cannot_accept_is_not_ready_and_lives(make_api: MakeApi, valkey: Valkey) -> None:
    api = make_api(valkey.url, **NO_SPOOL)
    assert api.http.get("/readyz").status_code == 200
    before = keys_of(api.http.get("/health").json())
    with away(valkey):
        ready, health = api.http.get("/readyz"), api.http.get("/health")
        assert keys_of(health.json()) == before
        assert (ready.status_code, ready.headers["content-type"]) == (503, PROBLEM)
        assert (health.status_code, health.json()["status"]) == (503, "down")
        assert api.http.get("/livez").status_code == 200
        assert api.http.get("/dispatches").status_code == 503
    wait_until(lambda: api.http.get("/readyz").status_code == 200)


def test_a_broker_that_hangs_is_told_within_seconds(make_api: MakeApi, tmp_path: Path) -> None:
    hanging = Valkey(tmp_path).start()
    try:
        api = make_api(hanging.url, **NO_SPOOL)
        assert api.send().status_code == 202
        hanging.pause()
        began = time.monotonic()
        assert api.http.get("/readyz").status_code == 503
        assert api.http.get("/health").status_code == 503
        assert api.http.get("/livez").status_code == 200
        with api.follow("0-0") as bus:
            assert bus.next()["reason"] == "bus_unavailable"
        assert time.monotonic() - began < 20
        hanging.resume()
        wait_until(lambda: api.http.get("/readyz").status_code == 200)
    finally:
        hanging.resume()
        hanging.kill()


def test_a_store_that_takes_no_write_is_not_ready(
    make_api: MakeApi, valkey: Valkey, store: Store
) -> None:
    api = make_api(valkey.url, **NO_SPOOL)
    store.client.config_set("min-replicas-to-write", 1)
    try:
        answer = api.http.get("/readyz")
        assert answer.status_code == 503
        assert "NOREPLICAS" in answer.json()["detail"]
        assert api.http.get("/health").status_code == 200
    finally:
        store.client.config_set("min-replicas-to-write", 0)
    assert api.http.get("/readyz").status_code == 200


def test_a_store_that_was_emptied_is_not_ready_until_an_operator_says_so(
    make_api: MakeApi, tmp_path: Path
) -> None:
    emptied = Valkey(tmp_path).start()
    try:
        api = make_api(emptied.url)
        assert api.send().status_code == 202
        memory = api.data_dir / "store.json"
        wait_until(lambda: memory.exists() and '"seq": 1' in memory.read_text())
        with closing(open_store(emptied.url)) as store:
            store.client.flushall()
            wait_until(lambda: api.http.get("/readyz").status_code == 503)
            assert "fleet recover" in api.http.get("/readyz").json()["detail"]
            answer = api.send()
            assert (answer.status_code, answer.json()["type"]) == (
                503,
                "urn:fleet:problem:store-lost",
            )
            assert api.http.get("/health").json()["status"] == "degraded"
            wait_until(lambda: "store_lost" in {e.fields.get("name") for e in alerts(store)})
            recover = [sys.executable, "-m", "fleet", "recover"]
            config = {"FLEET_CONFIG": str(api.data_dir.parent / "fleet.toml")}
            done = subprocess.run(
                recover, env={**os.environ, **config}, capture_output=True, text=True, check=True
            )
            assert "goes on" in done.stdout
            assert api.http.get("/readyz").status_code == 200
            assert api.send().status_code == 202
    finally:
        emptied.kill()


def alerts(store: Store) -> list[BusEvent]:
    """The alerts on the bus."""
    return [entry for entry in bus.read(store, "0-0", count=1000) if entry.type == "alert"]


def test_it_serves_before_there_is_a_broker(make_api: MakeApi, tmp_path: Path) -> None:
    later = Valkey(tmp_path)
    api = make_api(later.url, **NO_SPOOL)
    assert api.http.get("/livez").status_code == 200
    assert api.send().status_code == 503
    with api.follow() as bus:
        assert bus.next()["reason"] == "bus_unavailable"
        later.start()
        try:
            notice = bus.next()  # now there is something to fetch, and what follows comes after it
            assert notice["reason"] == "bus_unavailable"
            assert api.send().status_code == 202
            assert [event["type"] for event in bus.take(2)][-1] == "dispatch_queued"
        finally:
            later.kill()


def test_the_address_is_told_while_it_serves(make_api: MakeApi, valkey: Valkey) -> None:
    api = make_api(valkey.url)
    assert read_address(api.data_dir) == api.url
    began = time.monotonic()
    with api.follow():
        code, said = api.end()
    assert (code, said) == (0, "")
    assert time.monotonic() - began < 10
    assert read_address(api.data_dir) is None


def refused_start(config: Path, valkey: Valkey, code: str) -> subprocess.CompletedProcess[str]:
    config.write_text(
        f'fleet.broker_url = "{valkey.url}"\nfleet.data_dir = "{config.parent}"\n'
        '[agents.archie]\nrunner = "python"\npython = "a:b"\n'
    )
    script = (
        "from fleet.api.server import serve\nfrom fleet.errors import FleetError\n"
        f"try: serve({code})\n"
        "except FleetError as error: raise SystemExit(f'{error.exit_code} {error}')"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        env={"FLEET_CONFIG": str(config), "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_port_in_use_is_one_sentence(valkey: Valkey, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = refused_start(tmp_path / "fleet.toml", valkey, f"port={port}")
    assert done.stderr.startswith(f"1 Port {port} on 127.0.0.1 is in use")
    assert "api.port" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_that_others_can_reach_is_refused(
    valkey: Valkey, tmp_path: Path, host: str
) -> None:
    done = refused_start(tmp_path / "fleet.toml", valkey, f"host={host!r}, port={free_port()}")
    assert done.stderr.startswith(f"2 api.host: others can reach {host}")


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://elsewhere.example"}, {"Origin": "null"}, {"Host": "rebound.example"}],
)
def test_other_sites_pages_change_nothing(api: Api, headers: dict[str, str]) -> None:
    answer = api.http.post("/events", json={"text": "x"}, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (403, PROBLEM)


def test_own_pages_and_local_names_are_served(api: Api) -> None:
    for headers in ({"Origin": api.url}, {"Host": "localhost:1"}):
        assert api.http.post("/events", json={"text": "x"}, headers=headers).status_code == 202
    for host in ("api", "host.docker.internal:80"):
        assert api.http.get("/livez", headers={"Host": host}).status_code == 403
    assert api.http.get("/livez", headers={"Host": "rebound.example"}).status_code == 403
    assert api.http.get("/livez", headers={"Origin": "https://elsewhere"}).status_code == 200


def test_what_is_answered_is_as_described(api: Api) -> None:
    description = api.http.get("/openapi.json").json()

    def check(answer: Any, name: str) -> None:
        root = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
        Draft202012Validator(root).validate(answer)

    sent = api.send(to="gem", session="s").json()
    check(sent, "Accepted")
    one = f"/dispatches/{sent['dispatches'][0]['dispatch_id']}"
    check(api.http.get(one).json(), "Dispatch")
    check(api.http.get(one, params={"content": "1"}).json(), "Dispatch")
    check(api.http.get("/dispatches").json(), "Page")
    check(api.http.get("/health").json(), "Health")
    check(api.http.get("/agents").json(), "Agents")
    check(api.http.get("/agents/gem").json(), "Agent")
    check(api.http.post("/agents/gem/resume").json(), "Switched")
    check(api.send(to="nobody").json(), "Problem")
    with api.follow("x") as bus:
        check(bus.next(), "BusEvent")
        check(api.http.post(f"{one}/cancel").json(), "Moved")
        check(bus.next(), "BusEvent")


def test_the_first_page_has_all_its_parts(api: Api) -> None:
    page = api.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for link in re.findall(r'(?:href|src)="([^"?#]+)', page.text):
        assert api.http.head(f"/{link}").status_code == 200
