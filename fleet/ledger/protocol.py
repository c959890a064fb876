"""The promises of a ledger, and the records that it takes and gives."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet.errors import Fenced, IdempotencyConflict, Refused
from fleet.ledger.states import FailureStage, State
from routing import Event, Plan, Verdict

#: Of tokens or dollars in one step; more is a mistake of who says so.
AMOUNT_MAX = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The answer to a sender: the same whoever asks, and however often."""

    event_id: str
    dispatches: tuple[tuple[str, str], ...]  #: (dispatch id, agent), in the order of the plan
    duplicate: bool
    chain: str | None = None  #: then `dispatches` are those of its first stage
    chain_id: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """The body of a 202."""
        wire = {
            "event_id": self.event_id,
            "dispatches": [{"dispatch_id": i, "agent": a} for i, a in self.dispatches],
            "duplicate": self.duplicate,
        }
        return wire | ({"chain": self.chain, "chain_id": self.chain_id} if self.chain else {})


#: Of one event.
Answer = Accepted | Refused | IdempotencyConflict


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMessage:
    """One message of a session's history.

    A session has one history, whichever agents take part. `commit.lua` writes it in the step that
    completes a turn, so a failed attempt leaves nothing behind, and a turn is in it once. It is
    bounded by messages and by tokens, oldest forgotten first.
    """

    role: str  #: `user` or `assistant`
    agent: str  #: who answered; empty for a user's message
    event: str  #: the digest of the event that it belongs to
    text: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseToken:
    """The right of a lease's holder to claim and to end its agent's dispatches."""

    agent: str
    fence: int
    lease: str  #: a random name, because a store that lost writes may give a token again
    holder: str
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A dispatch that this worker now runs, under `fence`."""

    dispatch_id: str
    agent: str
    attempt: int
    fence: int
    event: Event
    lease: str = ""  #: the name of the lease; empty without one
    #: Grows with every attempt in the fleet; without the store, by the clock of the machine.
    turn_fence: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    cancel: str = ""  #: why somebody asked to cancel it, before it started
    history: tuple[SessionMessage, ...] = ()  #: its session's earlier messages, oldest first
    joined: tuple[Event, ...] = ()  #: later events of its session that this turn is also about
    chain_position: ChainPosition | None = None  #: where in which chain, if it is a stage of one

    @property
    def text(self) -> str:
        """The text for the agent: the event's, and below it those of the joined events."""
        return "\n\n".join(event.text for event in (self.event, *self.joined))

    def fenced(self) -> Fenced:
        """The error of an attempt that is no longer the current one."""
        return Fenced(f"Attempt {self.attempt} of {self.dispatch_id} is no longer the current one.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt failed, and whether another may do better."""

    stage: FailureStage
    reason: str  #: one sentence without content or secrets
    retryable: bool
    retry_after_s: float | None = None
    kind: str = ""  #: the class of the error
    place: str = ""  #: file and line of the agent's code, `my_agents.py:17`
    #: Content: what the exception, the program or the service said.
    message: str = field(default="", repr=False)
    traceback: str = field(default="", repr=False)  #: content
    #: Nothing was tried, and nothing of this agent can be until `retry_after_s` has passed: the
    #: dispatch keeps its place and its attempts, and the agent claims none before.
    defer: bool = False

    @classmethod
    def past_hard_limit(cls, limit_s: float) -> "Failure":
        """The failure of a turn whose child was killed at its hard limit."""
        return cls(
            stage=FailureStage.TIMEOUT,
            reason=f"the turn ran on past its hard limit of {limit_s:g} s and was killed",
            retryable=True,
            kind="TimeLimitExceeded",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of one step."""

    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0

    @classmethod
    def of(cls, result: Any) -> "Cost":
        """The `tokens_in`, `tokens_out` and `usd` of a step's result, when it is an object."""
        if not isinstance(result, Mapping):
            return NOTHING
        tokens_in, tokens_out, usd = (
            _amount(result.get(name)) for name in ("tokens_in", "tokens_out", "usd")
        )
        return cls(tokens_in=int(tokens_in), tokens_out=int(tokens_out), usd=usd)


NOTHING = Cost()


def _amount(value: Any) -> float:
    """An amount within the bounds of a counter, from a value that an agent's own code gave."""
    try:
        amount = float(value or 0)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return amount if 0 < amount < AMOUNT_MAX else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended: with an answer, a failure, or a cancellation."""

    answer: str = ""
    failure: Failure | None = None
    cancelled: str = ""
    facts: Mapping[str, str | int | float] = field(default_factory=dict)  #: model, tokens, usd ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A dispatch's run before the ledger had it; times in seconds before now."""

    dispatch_id: str
    agent: str
    run: str  #: the same whenever this run is told; another run of the dispatch has another
    attempt: int
    losses: int
    holder: str
    started_ago_s: float
    elapsed_s: float
    #: None: it was begun and has not ended, or is to be tried by somebody who can ask the store.
    ending: Ending | None
    steps: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedEvent:
    """An event that was accepted before the ledger had it, that many seconds ago."""

    event: Event
    plan: Plan
    age_s: float
    reports: tuple[Report, ...] = ()  #: of its dispatches that have begun


class Acceptor(Protocol):
    """The way in of an event: the ledger, or the spool before it."""

    def accept_many(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
        """Accept each in turn, in one round trip, with its dispatches and their wake-ups.

        A known event answers its first ids. One refusal does not touch the others: Refused when an
        agent's `max_pending` is reached, SessionBusy when an agent takes no second event of a
        session, IdempotencyConflict when a known event has other content.
        """
        ...


class Runs(Protocol):
    """The journal of turns, and the destination of their outcomes.

    Every call is atomic and may be repeated when its reply was lost. Raises BrokerUnavailable when
    the store does not answer, and Fenced when a newer holder has the agent.
    """

    def step(
        self,
        claim: Claim,
        key: str,
        entry: str,
        cost: Cost = NOTHING,
        verification: str = "",
        reason: str = "",
    ) -> str:
        """Journal a finished step and count its cost; answers why to cancel, or an empty string.

        Where the step delivered the event, `verification` says how that was confirmed and `reason`
        why: reported on the bus and counted, once for each entry.
        """
        ...

    def steps(self, dispatch_id: str) -> dict[str, str]:
        """The journal of a dispatch: step key -> entry."""
        ...

    def commit(self, claim: Claim, ending: Ending) -> State:
        """End the attempt; answers the state the dispatch is in now."""
        ...


class Ledger(Acceptor, Runs, Protocol):
    """The durable record of every dispatch; the only place where a state changes."""
