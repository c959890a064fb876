"""Governance chains: their stages, validated as a whole, and the verdict of a stage's answer.

A stage is one agent, a group that votes, or a person. The verdict in its answer decides: approve
(continue), reject (stop) or revise (go back). `read_verdict` finds the verdict in the text.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from routing.errors import InvalidRoute
from routing.nearest_name import question
from routing.rules import CHAIN_MARK, Targets

HUMAN_MARK = "human:"
#: A longer chain is a program, and should be written as a program.
STAGES_MAX = 100

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")


class Verdict(StrEnum):
    """The verdict of a stage about the rest of its chain."""

    APPROVE = "approve"
    REJECT = "reject"
    REVISE = "revise"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRule:
    """A stage as configured."""

    agent: str  #: an agent's name, `@group`, `all` or `human:NAME`
    quorum: int | None = None  #: approvals needed of a group; None is more than half
    timeout_s: float | None = None  #: of a turn, at most the agent's own
    deadline_s: float | None = None  #: how long a person has


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage with its names resolved."""

    name: str
    members: tuple[str, ...]  #: agents, or the `human:NAME` itself
    quorum: int
    person: str = ""  #: NAME, where a person decides
    timeout_s: float | None = None
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain in which every name resolves. Create it with `Chain.checked`."""

    name: str
    stages: tuple[Stage, ...]
    on_failure: Literal["stop", "skip"] = "stop"
    on_silence: Verdict = Verdict.APPROVE
    max_revisions: int = 3

    @property
    def agents(self) -> tuple[str, ...]:
        """Every agent of any stage, once."""
        stages = (stage.members for stage in self.stages if not stage.person)
        return tuple(dict.fromkeys(agent for members in stages for agent in members))

    @property
    def people(self) -> tuple[str, ...]:
        """Every `human:NAME` of any stage, once."""
        return tuple(dict.fromkeys(stage.name for stage in self.stages if stage.person))

    @classmethod
    def checked(
        cls,
        name: str,
        rules: Sequence[StageRule],
        targets: Targets,
        *,
        human_deadline_s: float,
        **options: Any,
    ) -> "Chain":
        """Resolve the stages. Raises InvalidRoute naming the key of the first invalid stage."""
        key = f"chains.{_shown(name)}"
        if not _NAME.match(name):
            raise InvalidRoute(
                f"{key}: a chain's name is letters, digits, '-' and '_', 64 at most."
            )
        if not rules:
            raise InvalidRoute(f"{key}.stages is empty: name at least one stage.")
        if len(rules) > STAGES_MAX:
            raise InvalidRoute(f"{key}.stages has {len(rules)} stages; {STAGES_MAX} is the most.")
        stages = tuple(
            _stage(f"{key}.stages.{place}", name, rule, targets, human_deadline_s)
            for place, rule in enumerate(rules)
        )
        return cls(name=name, stages=stages, **options)


def _stage(
    key: str, chain: str, rule: StageRule, targets: Targets, human_deadline_s: float
) -> Stage:
    if rule.agent.startswith(CHAIN_MARK):
        itself = rule.agent == CHAIN_MARK + chain
        reason = "the chain itself" if itself else f"{_shown(rule.agent)!r}"
        raise InvalidRoute(f"{key} names {reason}: a chain's stage cannot be a chain.")
    if rule.agent.startswith(HUMAN_MARK):
        return _person(key, rule, human_deadline_s)
    members = targets.members(rule.agent)
    if not members:
        raise InvalidRoute(
            f"{key} names {_shown(rule.agent)!r}, which is not an agent, @group or human:NAME"
            f"{question(rule.agent, targets.reach)}"
        )
    if rule.deadline_s is not None:
        raise InvalidRoute(f"{key}.deadline_s is for a person's stage, human:NAME.")
    if rule.quorum is not None and rule.quorum > len(members):
        raise InvalidRoute(
            f"{key}.quorum is {rule.quorum}, but {rule.agent} has "
            f"{len(members)} member{'s' if len(members) > 1 else ''}."
        )
    return Stage(
        name=rule.agent,
        members=members,
        quorum=rule.quorum or len(members) // 2 + 1,
        timeout_s=rule.timeout_s,
    )


def _person(key: str, rule: StageRule, human_deadline_s: float) -> Stage:
    person = rule.agent.removeprefix(HUMAN_MARK)
    if not _NAME.match(person):
        raise InvalidRoute(
            f"{key} names no person: write human:NAME with letters, digits, '-' and '_'."
        )
    for option in ("quorum", "timeout_s"):
        if getattr(rule, option) is not None:
            raise InvalidRoute(f"{key}.{option} is not for a person's stage; it has a deadline_s.")
    return Stage(
        name=rule.agent,
        members=(rule.agent,),
        quorum=1,
        person=person,
        deadline_s=rule.deadline_s or human_deadline_s,
    )


_VERDICTS = {
    "approve": Verdict.APPROVE,
    "approved": Verdict.APPROVE,
    "reject": Verdict.REJECT,
    "rejected": Verdict.REJECT,
    "revise": Verdict.REVISE,
}
_WORD = "|".join(sorted(_VERDICTS, key=len, reverse=True))
#: Markdown's emphasis, headings, quotes and bullets around a line.
_MARKUP = r"[\s*_#>`~-]*"
#: `REJECT`, `**Revise:** shorter`, `approved - fine`. "Reject spam at the gate" is only text,
#: unless `verdict:` precedes it.
_BARE = re.compile(rf"{_MARKUP}({_WORD})[*_`~]*\s*(?:[.:,;!–—-].*)?$", re.IGNORECASE | re.DOTALL)
_NAMED = re.compile(rf"{_MARKUP}verdict[*_`~]*\s*[:=]{_MARKUP}({_WORD})\b", re.IGNORECASE)
_FENCED = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```\Z", re.DOTALL)
#: The most cautious first.
_CAUTION = (Verdict.REJECT, Verdict.REVISE, Verdict.APPROVE)


def read_verdict(answer: str) -> Verdict | None:
    """The verdict in an answer, or None.

    The `verdict` of a JSON object counts, otherwise the first and the last line. There the verdict
    stands alone, before a punctuation mark, or after `verdict:`. If the two lines differ, the more
    cautious verdict counts: reject, then revise.
    """
    text = answer.strip()
    found = _in_json(text)
    if found is not None:
        return found
    lines = [line for line in text.splitlines() if line.strip()]
    verdicts = {_in_line(line) for line in (lines[:1] + lines[-1:])}
    return next((verdict for verdict in _CAUTION if verdict in verdicts), None)


def _in_json(text: str) -> Verdict | None:
    fenced = _FENCED.match(text)
    body = fenced[1] if fenced else text
    if not body.lstrip().startswith("{"):
        return None
    value: Any = None
    with suppress(ValueError, RecursionError):
        value = json.loads(body)
    verdict = value.get("verdict") if isinstance(value, Mapping) else None
    return _VERDICTS.get(verdict.strip().lower()) if isinstance(verdict, str) else None


def _in_line(line: str) -> Verdict | None:
    match = _NAMED.match(line) or _BARE.match(line)
    return _VERDICTS[match[1].lower()] if match else None


def _shown(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name[:64])
