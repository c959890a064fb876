"""The route of an event: explicit targets, mentions, groups, everybody, the default."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import Event, InvalidEvent, InvalidRoute, Plan, Rules, UnknownTarget, decide

AGENTS = ("archie", "gem", "mini", "olly-2")
RULES = Rules.checked(
    AGENTS, {"reviewers": ("gem", "mini"), "both": ("mini", "archie")}, ("archie",), True
)


def plan(text: str = "hello", to: str | Sequence[str] = (), rules: Rules = RULES) -> Plan:
    raw = {"text": text, **({"to": list(to) if not isinstance(to, str) else to} if to else {})}
    return decide(Event.parse(raw, new_id="1", now="2026-11-21T10:00:00Z"), rules)


@pytest.mark.parametrize(
    ("to", "agents"),
    [
        ("gem", ["gem"]),
        ("@gem", ["gem"]),
        ("@reviewers", ["gem", "mini"]),
        ("all", list(AGENTS)),
        ("@all", None),
        (["mini", "archie"], ["mini", "archie"]),
        (["mini", "@reviewers", "@both"], ["mini", "gem", "archie"]),
        (["gem", "all"], ["gem", "archie", "mini", "olly-2"]),
        (["all"] * 1000, list(AGENTS)),
    ],
)
def test_explicit_targets(to: str | list[str], agents: list[str] | None) -> None:
    """In the order they are named, each agent once; `all` is a target, not a group."""
    if agents is None:
        with pytest.raises(UnknownTarget):
            plan(to=to)
        return
    assert list(plan(to=to).agents) == agents


@pytest.mark.parametrize(
    ("text", "agents"),
    [
        ("@gem look", ["gem"]),
        ("look, @gem!", ["gem"]),
        ("@gem, @archie: look", ["gem", "archie"]),
        ("(@gem)", ["gem"]),
        ("@gem.", ["gem"]),
        ("@olly-2 look", ["olly-2"]),
        ("@reviewers look", ["gem", "mini"]),
        ("@gem and @reviewers", ["gem", "mini"]),
        ("@gem @gem @gem", ["gem"]),
        ("write to ann@gem.example", ["archie"]),
        ("write to ann@gem", ["archie"]),
        ("ann.lee@gem", ["archie"]),
        ("@@gem", ["archie"]),
        ("@nobody look", ["archie"]),
        ("@nobody, then @mini", ["mini"]),
        ("@gemini look", ["archie"]),
        ("@GEM look", ["archie"]),
        ("@", ["archie"]),
        ("in line two\n@gem", ["gem"]),
    ],
)
def test_mentions(text: str, agents: list[str]) -> None:
    """A mention of nobody and an e-mail address are just text."""
    assert list(plan(text).agents) == agents


def test_an_explicit_target_outranks_a_mention() -> None:
    assert plan("@gem look", to="mini").agents == ("mini",)


def test_mentions_can_be_switched_off() -> None:
    assert plan("@gem", rules=Rules.checked(AGENTS, {}, ("mini",), False)).agents == ("mini",)


def test_the_reason_is_in_words() -> None:
    assert plan(to=["gem", "@both"]).reason == "to: gem, @both"
    assert plan("@gem").reason == "mentions: @gem"
    assert plan().reason == "routes.default"


def test_an_unknown_target_is_named_and_refuses_the_whole_event() -> None:
    with pytest.raises(UnknownTarget) as refusal:
        plan("a secret", to=["gem", "nobody"])
    assert str(refusal.value) == ("There is no agent, group or chain 'nobody' in this fleet.")


def test_a_long_or_hostile_target_is_shown_safely() -> None:
    for target in ("x" * 10_000, "\x1b[2J", "a\nb", "\ud800"):
        with pytest.raises(UnknownTarget) as refusal:
            plan(to=target)
        assert str(refusal.value).isprintable()
        assert len(str(refusal.value)) < 400


def test_nobody_to_send_to_is_refused() -> None:
    rules = Rules.checked(AGENTS, {}, (), True)
    with pytest.raises(InvalidEvent, match="no default route"):
        plan("@nobody", rules=rules)


@pytest.mark.parametrize("word", ["@gem", "@nobody", "@", "a@gem", "@gem@gem"])
def test_ten_thousand_mentions_take_no_time(word: str) -> None:
    text = f"{word} " * 10_000
    started = time.process_time()
    assert plan(text).agents
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("text", ["@" * 500_000, "@" + "a" * 500_000, "a" * 500_000 + "@"])
def test_no_text_makes_the_search_for_mentions_slow(text: str) -> None:
    started = time.process_time()
    assert plan(text).agents == ("archie",)
    assert time.process_time() - started < 0.5


WRONG_TABLES: dict[str, tuple[tuple[dict[str, list[str]], tuple[str, ...]], str]] = {
    "an empty group": (({"g": []}, ()), "routes.groups.g is empty"),
    "a group of nobody": (({"g": ["gem", "nobody"]}, ()), "routes.groups.g names 'nobody'"),
    "a group of groups": (({"g": ["@g"]}, ()), "routes.groups.g names '@g'"),
    "a default to nobody": (({}, ("nobody",)), "routes.default names 'nobody'"),
    "a default to no group": (({}, ("@nobody",)), "routes.default names '@nobody'"),
    "a default twice": (({}, ("gem", "mini", "gem")), "routes.default names 'gem' twice"),
    "a default to no chain": (({}, ("chain:no",)), "routes.default names 'chain:no'"),
    "a default to a chain and more": (({}, ("chain:ship", "gem")), "routes.default names a chain"),
    "a member twice": (({"g": ["gem", "gem"]}, ()), "routes.groups.g names 'gem' twice"),
    "a group called as an agent": (({"gem": ["mini"]}, ()), "routes.groups.gem has the name of"),
    "a group called all": (({"all": ["gem"]}, ()), "routes.groups.all: a group's name"),
    "a group nobody can mention": (({"a b": ["gem"]}, ()), "routes.groups.a b: a group's name"),
}


@pytest.mark.parametrize("case", WRONG_TABLES)
def test_a_route_to_nobody_is_refused_when_the_table_is_read(case: str) -> None:
    (groups, default), words = WRONG_TABLES[case]
    with pytest.raises(InvalidRoute, match=words):
        Rules.checked(AGENTS, groups, default, True, ("ship",))


def test_a_chain_is_a_target() -> None:
    rules = Rules.checked(AGENTS, {}, ("chain:ship",), True, ("ship",))
    for found in (plan(rules=rules), plan(to="chain:ship", rules=rules)):
        assert (found.agents, found.chain) == ((), "ship")
    assert plan("@ship, @gem", rules=rules).agents == ("gem",)  # chains have no mentions


@pytest.mark.parametrize("to", ["chain:nobody", "chain:", "chain: ship", "ship", "@chain:ship"])
def test_an_unknown_chain_is_refused(to: str) -> None:
    with pytest.raises(UnknownTarget):
        plan(to=to, rules=Rules.checked(AGENTS, {}, (), True, ("ship",)))


@pytest.mark.parametrize("to", [["chain:ship", "gem"], ["all", "chain:ship"]])
def test_a_chain_must_be_the_only_target(to: list[str]) -> None:
    with pytest.raises(InvalidEvent, match="`chain:ship` must be the only target"):
        plan(to=to, rules=Rules.checked(AGENTS, {}, (), True, ("ship",)))


def test_a_group_may_be_the_default_and_so_may_everybody() -> None:
    for default, agents in ((("@g",), ("gem",)), (("all",), AGENTS)):
        assert plan(rules=Rules.checked(AGENTS, {"g": ["gem"]}, default, True)).agents == agents


targets = st.sampled_from([*AGENTS, "@reviewers", "@both", "all", "nobody", "@nobody"])


@given(to=st.lists(targets, max_size=6), text=st.text(min_size=1).filter(str.strip))
def test_a_plan_names_known_agents_once_each(to: list[str], text: str) -> None:
    try:
        found = plan(text, to=to).agents
    except (UnknownTarget, InvalidEvent):
        return
    assert found
    assert set(found) <= set(AGENTS)
    assert len(found) == len(set(found))
    assert plan(text, to=to).agents == found
