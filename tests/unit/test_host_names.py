"""Under which names a server without a login answers a browser."""

import socket

import pytest

from fleet.config.settings import parse
from fleet.errors import ConfigError
from fleet.formats.host_names import is_allowed, is_foreign_origin

AGENTS = {"agents": {"archie": {"model": "echo/brief"}}}


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:80", "[::1]:80", "192.168.1.2", "LOCALHOST", "a.localhost:1"],
)
def test_addresses_and_loopback_are_always_served(host: str) -> None:
    assert is_allowed(host, ())


@pytest.mark.parametrize(
    "host", ["", ":80", "fleet", "rebound.example", "127.0.0.1.example", "[", "localhost.example"]
)
def test_any_other_name_is_refused(host: str) -> None:
    assert not is_allowed(host, ())


def test_names_are_a_setting() -> None:
    own = socket.gethostname()
    tables = {"allowed_hosts": ["Fleet", "host.docker.internal"], "public_url": "https://f.example"}
    names = parse({**AGENTS, "api": tables}).api.names
    for host in ("fleet:80", "host.docker.internal", "f.example", own, "fleet."):
        assert is_allowed(host, names)
    assert not is_allowed("api", names)


@pytest.mark.parametrize("name", ["*", "fleet:80", "http://fleet", ""])
def test_a_name_that_would_never_match_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"api\.allowed_hosts"):
        parse({**AGENTS, "api": {"allowed_hosts": [name]}})


def test_an_origin_is_compared_with_its_host() -> None:
    assert not is_foreign_origin(None, "fleet:80")
    assert not is_foreign_origin("http://Fleet:80", "fleet:80")
    for origin in ("null", "http://fleet", "https://elsewhere.example", "http://[x", "http://[::1"):
        assert is_foreign_origin(origin, "fleet:80")
