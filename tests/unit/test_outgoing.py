"""The proxy and the authorities of a call: what the environment says, and what it cannot mean."""

import os
from pathlib import Path

import httpx
import pytest

from fleet.system.outgoing import (
    UnusableVariable,
    authorities,
    client_options,
    proxy_for,
    unusable_variables,
)

PROXY = "http://127.0.0.1:3128"
TLS = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in TLS:
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("entries", "direct", "by_proxy"),
    [
        ("fd00::/8", "http://[fd12::1]/", "http://[fe80::1]/"),
        ("[::1], 10.0.0.0/8", "http://[::1]:80/", "http://11.0.0.1/"),
        ("10.0.0.0/8", "http://10.1.2.3/", "http://a10.0.0.0/"),
        ("example.org", "http://example.org./", "http://badexample.org/"),
        (".example.org", "http://a.b.Example.org/", "http://example.com/"),
        ("*.example.org", "http://a.example.org/", "http://org/"),
        ("example.org:81", "http://example.org:81/", "http://example.org:82/"),
        ("https://example.org", "https://example.org/", "http://example.org/"),
        ("all://example.org", "http://example.org/", "http://example.com/"),
        ("*", "http://example.org/", ""),
        (", ,%%,:,[,://", "", "http://example.org/"),
    ],
)
def test_no_proxy_names_hosts_domains_addresses_and_networks(
    entries: str, direct: str, by_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", entries)
    assert not direct or proxy_for(direct) is None
    assert not by_proxy or proxy_for(by_proxy) == PROXY


def test_a_scheme_has_its_own_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "127.0.0.1:1")
    monkeypatch.setenv("http_proxy", PROXY)
    assert proxy_for("https://x/") == proxy_for("wss://x/") == "http://127.0.0.1:1"
    assert proxy_for("http://x/") == proxy_for("ws://x/") == PROXY
    httpx.Client(**client_options("http://x/")).close()


@pytest.mark.parametrize(
    "value",
    ["socks://127.0.0.1:1", "socks5://127.0.0.1:1", "ftp://x", "http://[::1", "http://x:port"],
)
def test_a_proxy_that_cannot_be_used_fails_the_calls_that_need_it(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", value.replace("://", "://user:hidden@"))
    monkeypatch.setenv("NO_PROXY", "localhost")
    with pytest.raises(UnusableVariable, match=r"^ALL_PROXY: ") as failure:
        proxy_for("https://example.org/")
    assert "hidden" not in str(failure.value)
    assert proxy_for("http://localhost/") is None
    (told,) = unusable_variables()
    assert told == str(failure.value)


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSLKEYLOGFILE"])
def test_a_file_that_is_not_there_fails_the_calls_with_tls(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not list(unusable_variables())
    monkeypatch.setenv(name, str(tmp_path / "none" / "file"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))  # another context than that of other tests
    with pytest.raises(UnusableVariable, match=rf"^{name}: the file cannot be used"):
        authorities("https://example.org/")
    assert authorities("http://example.org/").get_ca_certs() == []
    httpx.Client(**client_options("http://example.org/")).close()
    assert [told.partition(":")[0] for told in unusable_variables()] == [name]


def test_a_file_with_no_certificate_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.pem").write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    with pytest.raises(UnusableVariable, match=r"^SSL_CERT_FILE: "):
        authorities("wss://example.org/")
