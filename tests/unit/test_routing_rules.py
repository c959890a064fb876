"""Rules of the route table: what they match, which of them decides, and which are refused."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routing import (
    Event,
    InvalidEvent,
    InvalidRoute,
    Plan,
    Rule,
    Rules,
    TooManyHops,
    decide,
    explain,
)
from routing.conditions import comparable
from routing.table import Match

AGENTS = ("archie", "gem", "mini")
ATTRIBUTES = ("type", "source", "subject")


def rule(name: str = "one", to: Sequence[str] = ("gem",), **conditions: Any) -> Rule:
    """A rule of attributes and `data`."""
    data: Mapping[str, Any] = conditions.pop("data", {})
    patterns = {
        name: [given] if isinstance(given, str) else given for name, given in conditions.items()
    }
    return Rule.checked(name=name, to=to, patterns=patterns, data=data)


def table(
    *rules: Rule, match: Match = "first", default: Sequence[str] = (), **options: Any
) -> Rules:
    return Rules.checked(
        AGENTS,
        {"both": ("gem", "mini")},
        default,
        True,
        ("ship",),
        rules=rules,
        match=match,
        **options,
    )


def event(**fields: Any) -> Event:
    return Event.parse({"text": "x", **fields}, new_id="1", now="2026-11-21T10:00:00Z")


def plan(rules: Rules, **fields: Any) -> Plan:
    return decide(event(**fields), rules)


DEPLOY = {"type": "com.example.deploy", "source": "ci/main", "subject": "web/1"}
CONDITIONS: list[tuple[dict[str, Any], bool]] = [
    ({"type": "com.example.deploy"}, True),
    ({"type": "com.example"}, False),
    ({"type": "com.example.*"}, True),
    ({"type": "*.deploy"}, True),
    ({"type": "COM.*"}, False),
    ({"type": ["nothing", "com.*"]}, True),
    ({"source": "ci/????"}, True),
    ({"source": "ci/[a-m]*"}, True),
    ({"subject": "*"}, True),
    ({"subject": "web/*", "type": "com.*"}, True),
    ({"subject": "web/*", "type": "org.*"}, False),
    ({"data": {"level": "high"}}, True),
    ({"data": {"level": ["low", "high"]}}, True),
    ({"data": {"level": "low"}}, False),
    ({"data": {"level": "HIGH"}}, False),
    ({"data": {"build.ok": False}}, True),
    ({"data": {"build": {"ok": False}}}, True),
    ({"data": {"build.ok": 0}}, False),
    ({"data": {"build.number": 7.0}}, True),
    ({"data": {"build.number": "7"}}, False),
    ({"data": {"build": "x"}}, False),
    ({"data": {"tags": "a"}}, False),
    ({"data": {"missing.field": "x"}}, False),
    ({"data": {"level.deeper": "x"}}, False),
    ({"data": {"level": "high"}, "type": "org.*"}, False),
]
DATA = {"level": "high", "build": {"ok": False, "number": 7}, "tags": ["a"]}


@pytest.mark.parametrize(("conditions", "matches"), CONDITIONS)
@pytest.mark.parametrize("match", ["first", "all"])
def test_a_rule_applies_when_every_condition_holds(
    conditions: dict[str, Any], matches: bool, match: Match
) -> None:
    rules = table(rule(**conditions), match=match, default=("mini",))
    found = plan(rules, **DEPLOY, data=DATA)
    assert found.agents == (("gem",) if matches else ("mini",))


def test_a_subject_is_optional_so_a_star_asks_for_any() -> None:
    rules = table(rule(subject="*"), default=("mini",))
    assert plan(rules).agents == ("mini",)
    assert plan(rules, subject="s").agents == ("gem",)


def test_targets_then_mentions_then_rules_then_the_default() -> None:
    rules = table(rule(type="t"), default=("archie",))
    assert plan(rules, type="t", to="mini", text="@gem").agents == ("mini",)
    assert plan(rules, type="t", text="@mini").agents == ("mini",)
    assert plan(rules, type="t", text="@nobody").agents == ("gem",)
    assert plan(rules, type="u").agents == ("archie",)
    with pytest.raises(InvalidEvent, match="no default route"):
        plan(table(rule(type="t")), type="u")


def test_the_first_match_decides_or_all_do_together() -> None:
    rules = [
        rule("one", ["mini"], type="com.*", subject="web/*"),
        rule("two", ["archie", "mini"], type="com.*"),
        rule("three", ["@both"]),
    ]
    assert plan(table(*rules), **DEPLOY).agents == ("mini",)
    found = plan(table(*rules, match="all"), **DEPLOY)
    assert found.agents == ("mini", "archie", "gem")
    assert found.reason == "routes.rules: one, two, three"


def test_each_agent_is_explained_by_every_reason() -> None:
    rules = table(rule("one", ["mini"], type="t"), rule("two", ["@both"]), match="all")
    assert explain(plan(rules, type="t"), rules) == {
        "mini": ["routes.rules.one to mini", "routes.rules.two to @both"],
        "gem": ["routes.rules.two to @both"],
    }
    assert explain(plan(rules, to=["gem", "@both"]), rules) == {
        "gem": ["to gem", "to @both"],
        "mini": ["to @both"],
    }
    assert explain(plan(rules, text="@gem"), rules) == {"gem": ["mention @gem"]}
    rules = table(default=("all",))
    assert explain(plan(rules), rules)["archie"] == ["routes.default all"]


def test_a_rule_may_start_a_chain() -> None:
    rules = table(rule("ship", ["chain:ship"], type="t"))
    assert (plan(rules, type="t").agents, plan(rules, type="t").chain) == ((), "ship")


STARRED = ("*", "com.*", "com.example.*", "*.deploy")
REFUSED: dict[str, tuple[list[Rule] | Any, str]] = {
    "everything twice": ([{}, {}], "routes.rules.r1 matches everything, as routes.rules.r0 does"),
    "everything in two ways": (
        [{"type": "*"}, {"source": ["*", "ci"]}],
        "routes.rules.r1 matches everything, as routes.rules.r0 does",
    ),
    "the same twice": (
        [{"type": "t", "data": {"a": 1}}, {"type": "t", "data": {"a": 1}}],
        "routes.rules.r1 has the same conditions, as routes.rules.r0 does",
    ),
    "a rule behind one for everything": ([{}, {"type": "t"}], "routes.rules.r1 can never apply"),
    "a word behind its glob": ([{"type": "t.*"}, {"type": "t.u"}], "r1 can never apply"),
    "a glob behind its glob": ([{"type": "t*"}, {"type": "t.u?*"}], "r1 can never apply"),
    "a part behind the whole": ([{"type": ["t", "u"]}, {"type": "u"}], "r1 can never apply"),
    "a value behind its list": (
        [{"data": {"a": [1, 2]}}, {"data": {"a": 2}, "type": "t"}],
        "r1 can never apply",
    ),
    "no pattern": ([{"type": []}], "routes.rules.r0.type is empty"),
    "an empty pattern": ([{"source": ""}], "routes.rules.r0.source holds an empty pattern"),
    "a pattern twice": ([{"subject": ["a", "a"]}], "routes.rules.r0.subject holds a pattern twice"),
    "no value": ([{"data": {"a": []}}], "routes.rules.r0.data.a must be a string"),
    "no field": ([{"data": {"a": {}}}], "routes.rules.r0.data.a must be a string"),
    "a value twice": ([{"data": {"a": [1, 1.0]}}], "routes.rules.r0.data.a holds a value twice"),
    "a list in a list": ([{"data": {"a": [[1]]}}], "routes.rules.r0.data.a must be a string"),
    "no number": ([{"data": {"a": float("nan")}}], "routes.rules.r0.data.a must be a string"),
    "the text": ([{"data": {"text": "x"}}], "'text' is the event's own field"),
    "an empty path": ([{"data": {"a..b": 1}}], "a field is named by a path"),
    "a field in two ways": (
        [{"data": {"a.b": 1, "a": {"b": 2}}}],
        "routes.rules.r0.data.a.b is there twice",
    ),
    "no target": ([{"to": []}], "routes.rules.r0.to is empty"),
    "an unknown target": ([{"to": ["nobody"]}], "routes.rules.r0.to names 'nobody'"),
    "a target twice": ([{"to": ["gem", "gem"]}], "routes.rules.r0.to names 'gem' twice"),
    "a chain and more": ([{"to": ["gem", "chain:ship"]}], "routes.rules.r0.to names a chain"),
    "no chain": ([{"to": ["chain:no"]}], "routes.rules.r0.to names 'chain:no'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_rule_is_one_sentence_that_names_it(case: str) -> None:
    given, words = REFUSED[case]
    with pytest.raises(InvalidRoute) as refusal:
        table(*(rule(**{"name": f"r{at}", **one}) for at, one in enumerate(given)))
    assert words in str(refusal.value)
    assert str(refusal.value).endswith((".", "?"))


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a.b"])
def test_a_rule_needs_a_name_that_a_sentence_can_show(name: str) -> None:
    with pytest.raises(InvalidRoute, match=re.escape("routes.rules: each needs a name")):
        rule(name)


def test_a_name_stands_for_one_rule() -> None:
    with pytest.raises(InvalidRoute, match=r"routes\.rules\.one is there 2 times"):
        table(rule(type="t"), rule(type="u"))


def test_a_default_behind_a_rule_for_everything_is_refused() -> None:
    with pytest.raises(InvalidRoute, match=r"routes\.default can never apply: routes\.rules\.one"):
        table(rule(), default=("gem",))


def test_a_chain_among_all_matches_is_refused() -> None:
    with pytest.raises(InvalidRoute, match=r"routes\.rules\.one\.to names a chain"):
        table(rule(to=["chain:ship"]), match="all")


def test_where_all_apply_a_wider_rule_may_stand_first() -> None:
    rules = table(rule("a", ["gem"]), rule("b", ["mini"], type="t"), match="all")
    assert plan(rules, type="t").agents == ("gem", "mini")


def test_a_loop_of_agents_ends_at_the_hop_limit() -> None:
    rules = table(default=("gem",), max_hops=3)
    current, turns = event(), 0
    while current.hops <= 3:
        assert decide(current, rules).agents
        turns += 1
        stored = Event.parse(current.to_wire(), new_id="2", now=current.time)
        current = event(**stored.forward({"text": "again", "hops": 0}))
    assert turns == 4
    with pytest.raises(TooManyHops, match=r"came through 4 turns of agents, .*max_hops allows 3"):
        decide(current, rules)


@pytest.mark.parametrize("hops", [-1, 1.0, True, "1", 1001, 10**400])
@pytest.mark.parametrize("form", [{}, {"specversion": "1.0", "data": {"text": "x"}}])
def test_hops_are_a_small_whole_number(hops: object, form: dict[str, Any]) -> None:
    raw = {**(form or {"text": "x"}), "hops": hops}
    with pytest.raises(InvalidEvent, match="`hops` must be a whole number from 0 to 1000"):
        Event.parse(raw, new_id="1", now="2026-11-21T10:00:00Z")


# What holds for any table and any event

words = st.sampled_from(["", "a", "b", "aa", "ab", "ba", "aab", "b?", "*"])
globs = st.text("ab*?", min_size=1, max_size=4)
patterns = st.lists(st.one_of(words.filter(bool), globs), min_size=1, max_size=2, unique=True)
scalars = st.sampled_from([0, 1, False, True, "a", 1.0])
values = st.one_of(scalars, st.lists(scalars, min_size=1, max_size=2, unique_by=comparable))
conditions = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(ATTRIBUTES, patterns),
        "data": st.dictionaries(st.sampled_from(["n", "m.k"]), values, max_size=2),
    },
)
sent = st.fixed_dictionaries(
    {
        "type": words.filter(bool),
        "source": words.filter(bool),
        "data": st.dictionaries(
            st.sampled_from(["n", "m"]), st.one_of(scalars, st.fixed_dictionaries({"k": scalars}))
        ),
    },
    optional={"subject": words.filter(bool)},
)


def holds(given: dict[str, Any], what: Event) -> bool:
    """The same in the plainest words there are."""
    for attribute in ATTRIBUTES:
        value = getattr(what, attribute)
        if attribute in given and (
            value is None or not any(fnmatchcase(value, one) for one in given[attribute])
        ):
            return False
    for path, wanted in given.get("data", {}).items():
        found: Any = what.data
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        options = wanted if isinstance(wanted, list) else [wanted]
        if not any(
            isinstance(found, bool) == isinstance(one, bool) and found == one for one in options
        ):
            return False
    return True


@given(st.lists(conditions, max_size=6), sent, st.sampled_from(["first", "all"]))
@example([{"type": ["a*"]}, {"type": ["ab"]}], {"type": "ab", "source": "a", "data": {}}, "all")
def test_the_rules_that_apply_are_found(
    given: list[dict[str, Any]], fields: dict[str, Any], match: Match
) -> None:
    try:
        rules = table(*(rule(f"r{at}", **one) for at, one in enumerate(given)), match=match)
    except InvalidRoute:
        return
    what = event(**fields)
    expected = [f"r{at}" for at, one in enumerate(given) if holds(one, what)]
    found = [one.name for one in rules.table.find(what)]
    assert found == (expected if match == "all" else expected[:1])


@given(conditions, conditions, sent)
def test_only_what_is_covered_is_refused(
    one: dict[str, Any], other: dict[str, Any], fields: dict[str, Any]
) -> None:
    """No event tells the two apart in the wrong direction; and the table notices each such pair."""
    first, second = rule("first", **one), rule("second", **other)
    what = event(**fields)
    if first.covers(second):
        assert first.match(what) or not second.match(what)
        with pytest.raises(InvalidRoute):
            table(first, second)
    else:
        table(first, second)
