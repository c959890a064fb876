"""`[pools]`: which worker runs an agent's turns."""

from typing import Any

import pytest

from fleet.config.settings import Settings, parse
from fleet.errors import ConfigError

AGENT = {"runner": "python", "python": "nobody:nothing"}


def read(pools: dict[str, Any], **agents: dict[str, Any]) -> Settings:
    return parse({"pools": pools, "agents": {name: {**AGENT, **a} for name, a in agents.items()}})


def test_agents_of_a_pool_share_its_queue() -> None:
    settings = read({"p": {"processes": 3}, "empty": {}}, a={"pool": "p"}, b={}, c={"pool": "p"})
    assert settings.workers == ("pool.p", "agent.b")
    assert [settings.queue(name) for name in "abc"] == ["pool.p", "agent.b", "pool.p"]
    assert settings.served("pool.p") == ("a", "c")
    assert [settings.processes(queue) for queue in settings.workers] == [3, 1]


def test_a_host_runs_the_pools_whose_needs_it_offers() -> None:
    pools = {"any": {}, "fast": {"needs": ["gpu", "db"]}}
    agents = {"a": {**AGENT, "pool": "any"}, "b": {**AGENT, "pool": "fast"}, "c": AGENT}
    few = parse({"fleet": {"offers": ["gpu"]}, "pools": pools, "agents": agents})
    all_ = parse({"fleet": {"offers": ["db", "gpu", "x"]}, "pools": pools, "agents": agents})
    assert few.workers_here == ("pool.any", "agent.c")
    assert all_.workers_here == all_.workers == ("pool.any", "pool.fast", "agent.c")


@pytest.mark.parametrize(
    ("pools", "agent", "sentence"),
    [
        ({"desk": {}}, {"pool": "dsk"}, "agents.a.pool: dsk is not a pool; did you mean desk?"),
        ({"p": {}}, {"parallel": 2}, "agents.a: has `parallel` or `weight`, which need a pool"),
        ({"p": {}}, {"weight": 2}, "agents.a: has `parallel` or `weight`, which need a pool"),
        ({"p": {}}, {"pool": "p", "parallel": 0}, "agents.a.parallel: "),
        ({"p": {}}, {"pool": "p", "weight": 0}, "agents.a.weight: "),
        ({"p": {"processes": 0}}, {"pool": "p"}, "pools.p.processes: "),
        ({"p": {"max_share": 1.5}}, {"pool": "p"}, "pools.p.max_share: "),
        ({"p": {"procesess": 2}}, {"pool": "p"}, "pools.p.procesess: "),
        ({"a b": {}}, {}, "pools.a b: a name is letters"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    pools: dict[str, Any], agent: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        read(pools, a=agent)
    assert str(raised.value).startswith(sentence)


def test_a_terminal_is_not_pooled() -> None:
    with pytest.raises(ConfigError, match="a terminal stays with one worker"):
        read({"p": {}}, a={"runner": "pty", "python": None, "command": ["sh"], "pool": "p"})
