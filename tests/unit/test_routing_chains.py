"""Chains as they are configured, and verdicts as agents write them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.config.settings import Settings, parse
from fleet.errors import ConfigError
from routing import Verdict, read_verdict

VERDICTS = {
    "APPROVE": "approve",
    "approved": "approve",
    "Approve: it is fine": "approve",
    "I read it all.\n\nREJECT: the rollback is missing": "reject",
    "Rejected. The rollback is missing.\nMore of why.": "reject",
    "**REVISE** - shorten it": "revise",
    "- Revise: shorten it": "revise",
    "### Verdict: reject because it is late": "reject",
    "text\n\n**Verdict:** Approve": "approve",
    "Approve, but see below.\nwords\nREJECT": "reject",
    "revise\nwords\napprove": "revise",
    "Approve — with thanks": "approve",
    '{"verdict": "reject", "reason": "approve nothing"}': "reject",
    '```json\n{"verdict": "Revise"}\n```': "revise",
    # No verdict: text that only speaks of one.
    "": None,
    "Here is the plan.": None,
    "Reject spam at the gate.\nApprove budgets by Friday.": None,
    "I would approve this.": None,
    "Approval is needed.": None,
    "first\nREJECT: in the middle\nlast": None,
    '{"verdict": "perhaps"}': None,
    '{"verdict": 1}': None,
    "{not json": None,
    "[" * 100_000: None,
    '{"a":' * 100_000: None,
}


@pytest.mark.parametrize("answer", VERDICTS, ids=lambda answer: answer[:40])
def test_a_verdict_is_read_where_it_is_given(answer: str) -> None:
    assert read_verdict(answer) == VERDICTS[answer]


@given(st.text())
def test_no_answer_is_too_odd(text: str) -> None:
    assert read_verdict(text) in (None, *Verdict)


@given(
    st.sampled_from(["approve", "reject", "revise"]),
    st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("C", "Z"))),
)
def test_a_verdict_at_the_end_is_never_overlooked(word: str, text: str) -> None:
    """It may be outdone by a more cautious first line, but not by a less cautious one."""
    found = read_verdict(f"{text}\nmiddle\n{word.upper()}: {text}")
    order = ["approve", "revise", "reject"]
    assert found is not None
    assert order.index(found) >= order.index(word)


AGENT = {"runner": "python", "python": "m:f", "timeout_s": 60}


def settings(chain: dict[str, Any], name: str = "release") -> Settings:
    return parse(
        {
            "agents": {"archie": AGENT, "gem": AGENT, "mini": AGENT},
            "routes": {"groups": {"reviewers": ["gem", "mini"]}},
            "chains": {name: chain},
        }
    )


def test_the_example_of_the_manual() -> None:
    chain = settings({"stages": ["archie", "@reviewers", "human:ops"]}).chain("release")
    one, group, person = chain.stages
    assert (one.members, one.quorum) == (("archie",), 1)
    assert (group.members, group.quorum) == (("gem", "mini"), 2)
    assert (person.person, person.members, person.deadline_s) == (
        "ops",
        ("human:ops",),
        7 * 86400,
    )
    assert (chain.on_failure, chain.on_silence, chain.max_revisions) == ("stop", "approve", 3)


def test_a_stage_may_have_limits_of_its_own() -> None:
    chain = settings(
        {
            "stages": [
                {"agent": "archie", "timeout_s": 20},
                {"agent": "@reviewers", "quorum": 1},
                {"agent": "human:ops", "deadline_s": 3600},
                "human:ann",
            ],
            "human_deadline_s": 60,
        }
    ).chain("release")
    assert [stage.timeout_s for stage in chain.stages] == [20, None, None, None]
    assert chain.stages[1].quorum == 1
    assert [stage.deadline_s for stage in chain.stages] == [None, None, 3600, 60]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no stages": ({}, "chains.release.stages: Field required."),
    "an empty list": ({"stages": []}, "chains.release.stages is empty"),
    "no list": ({"stages": "archie"}, "chains.release.stages: "),
    "too many": ({"stages": ["gem"] * 101}, "chains.release.stages has 101 stages"),
    "nobody": ({"stages": ["archie", "nobody"]}, "chains.release.stages.1 names 'nobody'"),
    "no group": ({"stages": ["@nobody"]}, "chains.release.stages.0 names '@nobody'"),
    "a number": ({"stages": [7]}, "chains.release.stages.0: "),
    "itself": ({"stages": ["chain:release"]}, "chains.release.stages.0 names the chain itself"),
    "another chain": (
        {"stages": ["chain:x"]},
        "chains.release.stages.0 names 'chain:x': a chain's",
    ),
    "no person": ({"stages": ["human:"]}, "chains.release.stages.0 names no person"),
    "an odd person": ({"stages": ["human:a b"]}, "chains.release.stages.0 names no person"),
    "an unknown key": (
        {"stages": [{"agent": "gem", "x": 1}]},
        "chains.release.stages.0.x: unknown",
    ),
    "no agent": ({"stages": [{"quorum": 1}]}, "chains.release.stages.0.agent: Field required."),
    "a large quorum": (
        {"stages": [{"agent": "@reviewers", "quorum": 3}]},
        "chains.release.stages.0.quorum is 3, but @reviewers has 2 members.",
    ),
    "a quorum of one agent": (
        {"stages": [{"agent": "gem", "quorum": 2}]},
        "chains.release.stages.0.quorum is 2, but gem has 1 member.",
    ),
    "no quorum": ({"stages": [{"agent": "gem", "quorum": 0}]}, "chains.release.stages.0.quorum: "),
    "true": ({"stages": [{"agent": "gem", "quorum": True}]}, "chains.release.stages.0.quorum: "),
    "a quorum of a person": (
        {"stages": [{"agent": "human:ops", "quorum": 1}]},
        "chains.release.stages.0.quorum is not for a person's stage",
    ),
    "a deadline of an agent": (
        {"stages": [{"agent": "gem", "deadline_s": 1}]},
        "chains.release.stages.0.deadline_s is for a person's stage",
    ),
    "a long timeout": (
        {"stages": [{"agent": "gem", "timeout_s": 61}]},
        "chains.release.stages.0.timeout_s must be at most 60 s, the limit of gem.",
    ),
    "on_reject": ({"stages": ["gem"], "on_reject": "skip"}, "chains.release.on_reject: "),
    "on_failure": ({"stages": ["gem"], "on_failure": "go"}, "chains.release.on_failure: "),
    "on_silence": ({"stages": ["gem"], "on_silence": "revise"}, "chains.release.on_silence: "),
    "max_revisions": ({"stages": ["gem"], "max_revisions": -1}, "chains.release.max_revisions: "),
    "human_deadline_s": (
        {"stages": ["gem"], "human_deadline_s": 0},
        "chains.release.human_deadline_s: ",
    ),
    "an unknown option": (
        {"stages": ["gem"], "voters": 1},
        "chains.release.voters: unknown key; correct or remove it.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_chain_is_refused_at_the_start(case: str) -> None:
    chain, words = WRONG[case]
    with pytest.raises(ConfigError) as refusal:
        settings(chain)
    assert str(refusal.value).startswith(words)
    assert str(refusal.value).endswith(".")
    assert "\n" not in str(refusal.value)


def test_a_chains_name_is_a_name() -> None:
    with pytest.raises(ConfigError, match=r"chains\.a b: a chain's name is letters"):
        settings({"stages": ["gem"]}, name="a b")


def test_a_group_of_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"routes\.groups\.reviewers is empty"):
        parse(
            {
                "agents": {"gem": AGENT},
                "routes": {"groups": {"reviewers": []}},
                "chains": {"release": {"stages": ["@reviewers"]}},
            }
        )
