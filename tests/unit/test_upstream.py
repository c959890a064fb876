"""The upstream's settings, and the addresses that are made of them."""

import pytest

from fleet.config.settings import parse
from fleet.errors import ConfigError
from fleet.upstream.gateway_address import GatewayAddress, after

AGENTS = {"a": {"runner": "python", "python": "nobody:nothing"}}
SECRET = "up-canary-4711"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ws", "https://gateway.example/ws"),
        ("ws", "gateway.example"),
        ("ws", "wss://"),
        ("ws", "wss://gateway.example:99999/ws"),
        ("ws", "wss://[::1/ws"),
        ("ws", "wss://gateway.example/ws#part"),
        ("ws", f"wss://me:{SECRET}@gateway.example/ws"),
        ("ws", "wss://☃/ws"),
        ("ws", 7),
        ("poll", "wss://gateway.example/events"),
        ("poll", f"https://me:{SECRET}@gateway.example/events"),
        ("poll", "https://gateway.example/a b"),
        ("token", f"{SECRET}\r\nX-Other: 1"),
        ("token", ""),
    ],
)
def test_what_is_no_address_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^upstream\.{key}: ") as refused:
        parse({"agents": AGENTS, "upstream": {key: value}})
    assert SECRET not in str(refused.value)
    assert refused.value.exit_code == 2


def test_without_an_address_there_is_no_gateway() -> None:
    assert GatewayAddress.of(parse({"agents": AGENTS}).upstream) is None


def test_the_name_is_the_same_for_both_ways_and_holds_no_secret() -> None:
    table = {
        "ws": f"wss://gateway.example:444/ws?key={SECRET}",
        "poll": "https://other.example/events",
        "token": SECRET,
    }
    gateway = GatewayAddress.of(parse({"agents": AGENTS, "upstream": table}).upstream)
    assert gateway is not None
    assert gateway.name == "gateway.example:444"
    assert gateway.headers == {"Authorization": f"Bearer {SECRET}"}
    assert SECRET not in gateway.digest


def test_the_place_is_asked_for_beside_what_the_address_says() -> None:
    assert after("wss://gateway.example/ws", "") == "wss://gateway.example/ws"
    asked = after("https://gateway.example/events?kind=all", "a&b=1")
    assert asked == "https://gateway.example/events?kind=all&last-event-id=a%26b%3D1"
