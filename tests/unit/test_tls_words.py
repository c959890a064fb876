"""The words of TLS in a broker's URL mean the same to every library, or are refused."""

import ssl
from typing import Any

import pytest
import redis
from kombu import Connection

from fleet.config.settings import parse
from fleet.errors import ConfigError
from fleet.store.address import broker_identity, kombu_url, results_url, store_url

AGENTS = {"a": {"runner": "python", "python": "a:b"}}
HOST = "rediss://:hush@store.example:6380/3"


def read_by_kombu(url: str) -> dict[str, object]:
    found: Any = Connection(kombu_url(url)).ssl
    return dict(found)


def read_by_redis(url: str) -> dict[str, object]:
    kwargs = redis.ConnectionPool.from_url(kombu_url(url)).connection_kwargs
    return {name: value for name, value in kwargs.items() if name.startswith("ssl_")}


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_without_a_word_every_library_demands_a_good_certificate(scheme: str) -> None:
    """By itself kombu would accept the certificate of anybody, with a warning in its log."""
    url = HOST.replace("rediss", scheme)
    assert read_by_kombu(url) == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert read_by_redis(url) == {"ssl_cert_reqs": "required"}


@pytest.mark.parametrize(
    ("words", "names"),
    [("ssl_check_hostname=false", False), ("ssl_check_hostname=true&ssl_cert_reqs=required", True)],
)
def test_a_host_name_is_checked_by_all_or_by_none(words: str, names: bool) -> None:
    url = f"{HOST}?{words}"
    assert read_by_kombu(url)["ssl_check_hostname"] is names
    assert read_by_redis(url)["ssl_check_hostname"] is names


def test_celerys_words_are_understood_by_redis_too() -> None:
    url = f"{HOST}?ssl_cert_reqs=CERT_REQUIRED"
    assert read_by_redis(url) == {"ssl_cert_reqs": "required"}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"{HOST}?ssl_ca_cert=/x", "there is no ssl_ca_cert; known are ssl_ca_certs"),
        (f"{HOST}?ssl_cert_reqs=maybe", "ssl_cert_reqs must be one of required, optional, none"),
        (f"{HOST}?ssl_check_hostname=1", "ssl_check_hostname must be one of true, false"),
        (f"{HOST}?ssl_keyfile=/x", "ssl_keyfile needs ssl_certfile"),
        ("redis://store.example/0?ssl_ca_certs=/x", "ssl_ca_certs needs a URL with rediss://"),
    ],
)
@pytest.mark.parametrize("key", ["broker_url", "store_url"])
def test_a_word_without_effect_is_refused(key: str, url: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse({"agents": AGENTS, "fleet": {key: url}})
    assert str(refused.value).startswith(f"fleet.{key}: {says}")
    assert "hush" not in str(refused.value)


def test_a_certificate_is_no_other_broker() -> None:
    """Events that wait on disk for a broker would otherwise wait for ever."""
    before, after = (
        parse({"agents": AGENTS, "fleet": {"broker_url": url}})
        for url in (HOST, f"{HOST}?ssl_certfile=/c.pem&ssl_keyfile=/c.key")
    )
    assert broker_identity(before) == broker_identity(after)


@pytest.mark.parametrize("key", ["broker_url", "store_url"])
def test_a_file_that_does_not_serve_is_named_with_its_word(
    key: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("files")
    (folder / "ca.pem").write_text("no certificate")
    for file, says in (("ca.pem", "must be PEM files"), ("none.pem", "cannot be read")):
        url = f"{HOST}?ssl_ca_certs={folder / file}"
        settings = parse({"agents": AGENTS, "fleet": {key: url}})
        with pytest.raises(ConfigError, match=rf"^fleet\.{key}: ssl_ca_certs {says}"):
            store_url(settings)
        with pytest.raises(ConfigError):
            results_url(settings)
