"""Clients that open connections and never finish a request: the API goes on answering others."""

import socket
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.sync.client import connect

from fleet.api import connections
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import Api, MakeApi

UNFINISHED = b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Dribble: "


def address_of(api: Api) -> tuple[str, int]:
    url = urlsplit(api.url)
    return str(url.hostname), int(url.port or 0)


def half_open(api: Api, opened: ExitStack, count: int) -> list[socket.socket]:
    """Connections whose headers have begun, and never end."""
    made = []
    for _ in range(count):
        made.append(opened.enter_context(closing(socket.create_connection(address_of(api), 10))))
        made[-1].sendall(UNFINISHED)
    return made


def is_closed(client: socket.socket) -> bool:
    try:
        client.setblocking(False)
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def alive(api: Api) -> bool:
    """True when a client that comes now is answered."""
    return httpx.get(f"{api.url}/livez", timeout=10, trust_env=False).status_code == 200


@pytest.fixture
def few(make_api: MakeApi, valkey: Valkey) -> Api:
    return make_api(valkey.url, FLEET_API__CONNECTIONS_PER_ADDRESS="20")


def test_half_open_connections_give_their_places_to_new_ones(few: Api) -> None:
    with ExitStack() as opened:
        clients = half_open(few, opened, 100)
        assert alive(few)
        wait_until(lambda: sum(not is_closed(one) for one in clients) <= 20)
        assert not is_closed(clients[-1]), "the newest ones stay"


def test_headers_that_do_not_come_end_the_connection(few: Api) -> None:
    with ExitStack() as opened:
        (client,) = half_open(few, opened, 1)
        wait_until(lambda: is_closed(client), connections.HEADER_S + 20)


def test_a_flood_beyond_the_files_of_the_process_stops_nobody(
    make_api: MakeApi, valkey: Valkey
) -> None:
    api = make_api(valkey.url, OPEN_FILES="256", FLEET_API__CONNECTIONS_MAX="100000")
    with ExitStack() as opened:
        for _ in range(4):
            half_open(api, opened, 150)
            assert alive(api)
    code, said = api.end()
    assert code == 0
    assert len(said) < 20_000


def test_requests_in_progress_are_not_put_out(few: Api) -> None:
    url = few.url.replace("http", "ws") + "/ws"
    with ExitStack() as opened:
        listeners = [opened.enter_context(connect(url)) for _ in range(10)]
        half_open(few, opened, 60)
        assert alive(few)
        few.send(to="archie")
        for one in listeners:
            assert one.recv(timeout=20)


def test_listeners_that_take_every_place_leave_them_when_they_go(few: Api) -> None:
    url = few.url.replace("http", "ws") + "/ws"
    with ExitStack() as opened:
        for _ in range(20):
            opened.enter_context(connect(url))
        answer = httpx.get(f"{few.url}/livez", timeout=10, trust_env=False)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]

    def back() -> bool:
        return httpx.get(f"{few.url}/livez", timeout=10, trust_env=False).status_code == 200

    wait_until(back)


def test_scanners_do_not_flood_the_log(few: Api) -> None:
    for _ in range(200):
        with closing(socket.create_connection(address_of(few), 10)) as client:
            client.sendall(b"\x16\x03\x01\x00nonsense\r\n\r\n")
            assert b"nosniff" in client.recv(1000)
    _, said = few.end()
    assert said.count("Invalid HTTP request") == 1
