"""Which addresses an outcome may go to, and what a configuration of receivers is refused for."""

import ipaddress
from typing import Any

import pytest

from fleet.config.settings import Settings, parse
from fleet.errors import ConfigError
from fleet.formats.public_address import ForbiddenAddress, is_public, literal, resolve
from fleet.ledger.arguments import agent_receivers, chain_receivers
from routing import Plan

AGENT = {"runner": "python", "python": "nobody:nothing"}
SECRET = "whsec_c2l4dGVlbiBieXRlcyBvciBtb3Jl"

FORBIDDEN = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1"),
    *("172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.127.255.255"),
    *("192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "240.0.0.1"),
    *("255.255.255.255", "::", "::1", "fe80::1", "fc00::1", "fd12::1", "fec0::1", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "::a00:1"),
    *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1"),
    *("2001:db8::1", "100::1", "2001:0:4136:e378:8000:63bf:f5ff:fffe"),
]
ALLOWED = [
    *("1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "192.169.0.1", "9.255.255.255"),
    *("2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"),
]


@pytest.mark.parametrize("text", FORBIDDEN)
def test_an_address_of_this_network_is_forbidden(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))
    with pytest.raises(ForbiddenAddress):
        resolve(text, 443)


@pytest.mark.parametrize("text", ALLOWED)
def test_an_address_of_the_internet_is_allowed(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


#: Spellings that the system's own resolver takes for an address.
@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost"])
def test_what_counts_is_what_is_connected_to(host: str) -> None:
    assert literal(host) is None
    with pytest.raises(ForbiddenAddress):
        resolve(host, 443)


def test_a_private_address_may_be_allowed() -> None:
    assert resolve("127.1", 443, allow_private=True) == ["127.0.0.1"]


def settings(receiver: Any, deliver: Any = ("crm",), name: str = "crm") -> Settings:
    return parse({"agents": {"a": {**AGENT, "deliver": deliver}}, "deliveries": {name: receiver}})


def receiver(**more: Any) -> dict[str, Any]:
    return {"webhook": "https://crm.example/hook?k=token", "secret": SECRET, **more}


def test_the_receivers_of_an_agent_and_of_a_chain() -> None:
    plan, back = Plan(agents=("a",), reason=""), Plan(agents=(), reason="", upstream=True)
    found = settings(receiver(deadline_s=60, on=["dead", "expired"]))
    assert agent_receivers(found, "a", plan) == "crm 60000 dead,expired"
    assert agent_receivers(found, "a", back) == "crm 60000 dead,expired upstream 3600000 *"
    assert agent_receivers(found, "somebody else", plan) == ""
    tables = {"agents": {"a": AGENT}, "chains": {"c": {"stages": ["a"], "deliver": ["b"]}}}
    chained = parse({**tables, "deliveries": {"b": {"agent": "a"}}})
    assert chain_receivers(chained, "c", plan) == "b 3600000 *"
    silent = parse({**tables, "deliveries": {"b": {"agent": "a"}}, "upstream": {"outcomes": False}})
    assert agent_receivers(silent, "a", back) == ""


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"webhook": "ftp://crm.example"}, "deliveries.crm.webhook: must be a URL"),
        ({"webhook": "https://crm.example:0/"}, "deliveries.crm.webhook: must be a URL"),
        ({"webhook": "https://crm.example:x/"}, "deliveries.crm.webhook: must be a URL"),
        ({"webhook": "https://crm.example/a b"}, "deliveries.crm.webhook: must be a URL"),
        ({"webhook": "https://me:pass@crm.example/"}, "deliveries.crm.webhook: must hold no user"),
        ({"webhook": "http://10.0.0.1/"}, "deliveries.crm: webhook is not a public address"),
        ({"webhook": "http://[::1]:80/"}, "deliveries.crm: webhook is not a public address"),
        ({"webhook": "http://localhost/"}, "deliveries.crm: webhook is not a public address"),
        ({"secret": "short"}, "deliveries.crm.secret: "),
        ({"window_s": 0}, "deliveries.crm.window_s: "),
        ({"window_s": 61}, "deliveries.crm.window_s: "),
        ({"deadline_s": 86401}, "deliveries.crm.deadline_s: "),
        ({"deadline_s": True}, "deliveries.crm.deadline_s: must be a number"),
        ({"tries": 3}, "deliveries.crm.tries: unknown key"),
    ],
)
def test_a_wrong_receiver_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(receiver(**wrong))
    assert str(refused.value).startswith(sentence)
    assert "token" not in str(refused.value)
    assert "pass@" not in str(refused.value)


def test_a_receiver_must_be_there_once() -> None:
    with pytest.raises(ConfigError, match=r"agents\.a\.deliver: there is no \[deliveries\.other\]"):
        settings(receiver(), deliver=["other"])
    with pytest.raises(ConfigError, match=r"agents\.a\.deliver: names a receiver twice"):
        settings(receiver(), deliver=["crm", "crm"])
    with pytest.raises(ConfigError, match=r"deliveries\.a b: a name is"):
        settings(receiver(), deliver=[], name="a b")
    with pytest.raises(ConfigError, match=r"deliveries\.upstream: a name is .* not 'upstream'"):
        settings(receiver(), deliver=[], name="upstream")
    with pytest.raises(ConfigError, match=r"deliveries\.crm: has no `secret`"):
        settings({"webhook": "https://crm.example/"})
    with pytest.raises(ConfigError, match=r"deliveries\.crm: needs a `webhook` or an `agent`"):
        settings(receiver(agent="a"))
    with pytest.raises(ConfigError, match=r"deliveries\.crm: needs a `webhook` or an `agent`"):
        settings({"window_s": 1})
    with pytest.raises(ConfigError, match=r"deliveries\.crm: has a `secret`"):
        settings({"agent": "a", "secret": SECRET})
    with pytest.raises(ConfigError, match=r"deliveries\.crm\.agent: b is not an agent"):
        settings({"agent": "b"})
    with pytest.raises(ConfigError, match=r"deliveries\.crm\.on\.0: "):
        settings(receiver(on=["done"]))
