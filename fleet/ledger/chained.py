"""Chains as the ledger's scripts want them, and as they answer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleet.config.settings import Settings
from fleet.ledger import receivers
from fleet.store import keys
from routing import Chain, Event, Plan, Verdict
from routing.chains import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """The end of an earlier stage; for a person, `answer` is their text."""

    stage: int  #: from 1
    stage_name: str
    round: int  #: grows with each revision
    agent: str
    state: str
    verdict: str | None  #: None where it failed
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPosition:
    """A turn's place in its chain."""

    chain: str
    stage: int  #: from 1
    stages: int
    stage_name: str
    round: int
    on_silence: Verdict
    timeout_s: float | None  #: of this stage, where it has one of its own
    earlier: tuple[Earlier, ...]  #: in the order in which they ended


def read_position(parts: Sequence[str]) -> ChainPosition | None:
    """The place in a chain as `claim.lua` answers it; None for a dispatch without a chain."""
    if not parts:
        return None
    place: dict[str, Any] = json.loads(parts[0])
    position = (int(place["stage"]), int(place["round"]))
    return ChainPosition(
        chain=place["name"],
        stage=int(place["stage"]),
        stages=int(place["stages"]),
        stage_name=place["stage_name"],
        round=int(place["round"]),
        on_silence=Verdict(place["silence"]),
        timeout_s=place.get("timeout_s"),
        # The other members of a group that votes do not sway this one.
        earlier=tuple(one for one in read_trail(parts[1:]) if (one.stage, one.round) != position),
    )


def read_trail(entries: Sequence[str]) -> list[Earlier]:
    """The entries of a chain's trail, in the order in which they ended."""
    ended = sorted((json.loads(text) for text in entries), key=lambda one: int(one["n"]))
    return [
        Earlier(
            stage=int(one["stage"]),
            stage_name=one["name"],
            round=int(one["round"]),
            agent=one["agent"],
            state=one["state"],
            verdict=one.get("verdict"),
            answer=one["answer"],
        )
        for one in ended
    ]


def plan_text(chain: Chain, event: Event, plan: Plan, settings: Settings) -> str:
    """A chain's plan for `accept.lua`: every name resolved and every limit given."""
    plan_fields = {
        "id": keys.chain_id(event.key, chain.name),
        "key": event.key,
        "name": chain.name,
        "skip": chain.on_failure == "skip",
        "silence": chain.on_silence,
        "max_revisions": chain.max_revisions,
        "stages": [_stage(stage, settings) for stage in chain.stages],
        "deliver": receivers.of_chain(settings, chain.name, plan),
    }
    return json.dumps(plan_fields, separators=(",", ":"))


def first_dispatches(chain: Chain, event: Event) -> tuple[tuple[str, str], ...]:
    """The ids and agents with which the chain begins, as `accept.lua` makes them."""
    first = chain.stages[0]
    members = [first.name] if first.person else first.members
    return tuple(
        (keys.stage_dispatch_id(event.key, chain.name, 1, 1, name), name) for name in members
    )


def _stage(stage: Stage, settings: Settings) -> dict[str, Any]:
    rule: dict[str, Any] = {"name": stage.name, "quorum": stage.quorum}
    if stage.person:
        deadlines = {stage.name: stage.deadline_s or 0.0}
        rule["person"] = stage.person
    else:
        deadlines = {name: settings.agents[name].retry.deadline_s for name in stage.members}
    if stage.timeout_s is not None:
        rule["timeout_s"] = stage.timeout_s
    rule["members"] = [
        {"agent": name, "deadline_ms": int(deadline_s * 1000)}
        for name, deadline_s in deadlines.items()
    ]
    return rule
