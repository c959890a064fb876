"""The ledger on Valkey: each verb is one Lua script, and this module gives it types."""

import json
import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from fleet.config.agents import AgentConfig, RetryConfig
from fleet.config.settings import Settings
from fleet.errors import ConfigError, Fenced, IdempotencyConflict, Refused
from fleet.ledger import receivers
from fleet.ledger.answers import old_digest, read_answer
from fleet.ledger.chained import plan_text, read_position
from fleet.ledger.history import BYTES_PER_TOKEN, recalled, written
from fleet.ledger.protocol import (
    NOTHING,
    Accepted,
    Answer,
    Claim,
    Cost,
    Ending,
    HandOver,
    Ledger,
    Report,
)
from fleet.ledger.states import State
from fleet.store import Store, keys
from fleet.store.connection import reachable
from fleet.store.wakeup import WakeupPublisher
from fleet.store.wire import Arg
from routing import Event, Plan, read_verdict
from routing.chains import HUMAN_MARK
from routing.event import SENT_LOCALLY

#: Dispatches. A server that accepts so many serves nobody else for half a millisecond.
ACCEPTS_PER_CALL = 10
#: Of a route, in its event's record: a list of a thousand targets would fill the store.
REASON_CHARS_MAX = 200
#: More than can ever wait.
_NO_MAX = 2**50
_NO_CAPS: tuple[Arg, Arg] = (_NO_MAX, "")
_NO_AGENT = AgentConfig(runner="python", python="nobody:nothing")
#: Of a stored event, beside what its sender sent. Only `payload_of` writes it.
_SENT_BY = "sentby"
#: A dispatch whose worker died this often is buried: it is more likely its cause than its victim.
LOSSES_MAX = 3


class ValkeyLedger(Ledger):
    """Implements `Ledger`; see there for what each verb promises."""

    def __init__(
        self, store: Store, settings: Settings, bell: WakeupPublisher | None = None
    ) -> None:
        """`bell` where the broker is not the store; else the scripts ring by themselves."""
        self.store = store
        self.bell = bell
        self.settings = settings
        self._chains = settings.routing_chains()
        self._keep_ended_ms = int(settings.retention.completed_s * 1000)
        self._keep_dead_ms = int(settings.retention.dead_s * 1000)
        sessions = settings.sessions
        self._history_bounds = (
            sessions.history_messages,
            sessions.history_tokens * BYTES_PER_TOKEN,
            int(sessions.history_ttl_s * 1000),
        )
        window_ms, most_ms = (
            int(seconds * 1000) for seconds in (sessions.coalesce_window_s, sessions.coalesce_max_s)
        )
        caps = settings.caps
        self._caps: tuple[Arg, Arg] = (caps.max_waiting, caps.sender_per_minute or "")
        self._on_busy = {
            "enqueue": "",
            "reject": "reject",
            "interrupt": f"interrupt {self._keep_ended_ms}",
            "coalesce": f"coalesce {window_ms} {most_ms}",
        }

    def accept_many(self, batch: Sequence[tuple[Event, Plan]]) -> list[Answer]:
        """Accept each in turn, in one round trip."""
        answers = chain.from_iterable(self.store.run_many("accept", _Accepts(self, _parts(batch))))
        accepted = [
            read_answer(event, answer) for (event, _), answer in zip(batch, answers, strict=True)
        ]
        if self.bell:
            for answer in accepted:
                _ring(self.bell, answer)
        return accepted

    def claim(self, agent: str, fence: int, holder: str) -> Claim | None:
        """The agent's next dispatch, or None when nothing is runnable."""
        answer = self.store.run(
            "claim",
            *(agent, fence, holder, LOSSES_MAX, self._keep_dead_ms, self._keep_ended_ms),
            *(uuid.uuid4().hex, self.settings.sessions.history_messages),
            int(self.settings.ageing_s * 1000),
        )
        if answer[0] == "fenced":
            raise Fenced(f"The lease of {agent} is no longer held under token {fence}.")
        if answer[0] != "claimed":
            return None
        _, dispatch_id, attempt, payload, cancel, said, joined, *place = answer
        event = read_payload(payload)
        return Claim(
            dispatch_id=dispatch_id,
            agent=agent,
            attempt=int(attempt),
            fence=fence,
            event=event,
            cancel=cancel,
            history=recalled(said, event),
            joined=tuple(map(read_payload, joined)),
            chain_position=read_position(place),
        )

    def step(
        self,
        claim: Claim,
        key: str,
        entry: str,
        cost: Cost = NOTHING,
        verification: str = "",
        reason: str = "",
    ) -> str:
        """Journal a finished step and count its cost; answers why to cancel, or an empty string."""
        verdict, cancel = self.store.run(
            "step",
            *(claim.dispatch_id, claim.fence, claim.attempt, key, entry),
            *(*_amounts(cost), verification, reason),
        )
        if verdict == "fenced":
            raise Fenced(
                f"Attempt {claim.attempt} of {claim.dispatch_id} is no longer the current one."
            )
        return str(cancel)

    def steps(self, dispatch_id: str) -> dict[str, str]:
        """The journal of a dispatch: step key -> entry."""
        with reachable():
            found: dict[str, str] = self.store.client.hgetall(keys.journal(dispatch_id))  # type: ignore[assignment]
        return found

    def commit(self, claim: Claim, ending: Ending) -> State:
        """End the attempt; answers the state the dispatch is in now."""
        if claim.chain_position and not (ending.failure or ending.cancelled):
            verdict = read_verdict(ending.answer) or claim.chain_position.on_silence
            ending = replace(ending, facts={**ending.facts, "verdict": verdict})
        said = "", ""
        if ending.answer.strip() and claim.event.session is not None:
            said = written(claim.event, claim.agent, claim.text, ending.answer)
        return self._commit(
            claim.dispatch_id, claim.agent, claim.fence, claim.attempt, ending, said
        )

    def commit_active(self, agent: str, fence: int, ending: Ending) -> State | None:
        """End whatever `agent` runs under `fence`; for the parent of a child that cannot any more.

        None when nothing was running.
        """
        try:
            return self._commit("", agent, fence, "", ending)
        except Fenced:
            return None

    def _commit(
        self,
        dispatch_id: str,
        agent: str,
        fence: int,
        attempt: Arg,
        ending: Ending,
        said: tuple[str, str] = ("", ""),
    ) -> State:
        args = self._ending_args(agent, ending, said)
        answer = self.store.run("commit", dispatch_id, agent, fence, attempt, *args)
        if answer[0] != "done":
            raise Fenced(f"The attempt of {dispatch_id or agent} is no longer the current one.")
        self.notify_stage(answer[2:])
        return State(answer[1])

    def _ending_args(
        self, agent: str, ending: Ending, said: tuple[str, str] = ("", "")
    ) -> list[Arg]:
        """How an attempt ended, as `commit.lua` wants it from its fifth argument on."""
        failure = ending.failure
        verdict = "failed" if failure else "cancelled" if ending.cancelled else "completed"
        if failure and failure.defer:
            verdict = "held"
        facts = {name: str(value) for name, value in ending.facts.items()}
        if failure and failure.kind:
            facts["error_kind"] = failure.kind
        text = json.dumps(facts, ensure_ascii=False)
        retry = (
            self.settings.agents[agent].retry if agent in self.settings.agents else RetryConfig()
        )
        retry_after_s = (failure.retry_after_s or 0.0) if failure else 0.0
        return [
            *(verdict, text, ending.answer),
            failure.stage if failure else "",
            failure.reason if failure else ending.cancelled,
            int(failure.retryable) if failure else 0,
            *(retry.attempts, int(retry.min_age_s * 1000), int(retry.backoff_s * 1000)),
            f"{random.random():.6f}",  # noqa: S311 - spreads load, guards nothing
            int(retry_after_s * 1000),
            *(self._keep_dead_ms, self._keep_ended_ms),
            *(said if self.settings.sessions.history_messages else ("", "")),
            *self._history_bounds,
        ]

    def notify_stage(self, made: Sequence[str]) -> None:
        """Ring for the dispatches of a chain's next stage, `id agent` each, as a script asks.

        Where they are not asked for, or not delivered, beat rings.
        """
        for dispatch_id, agent in (words.split() for words in made):
            if self.bell:
                self.bell(agent, dispatch_id)

    def import_spooled(self, batch: Sequence[HandOver]) -> int:
        """Accept events that the spool accepted, with what became of them; a known one is skipped.

        None is refused, neither for `max_pending` nor for a busy session. Answers how many of the
        reports came too late: the ledger has another run of that dispatch. Raises ConfigError for
        an event that cannot be accepted any more, before any of the batch is; IdempotencyConflict
        for one whose id stands for another event, after the rest of the batch is.
        """
        calls = [
            [self._told(one.reports), *self.accept_args(one.event, one.plan, age_s=one.age_s)]
            for one in batch
        ]
        late, conflict = 0, None
        for one, (answer, too_late, *made) in zip(
            batch, self.store.run_many("backfill", calls), strict=True
        ):
            accepted = read_answer(one.event, answer)
            if isinstance(accepted, Refused):
                raise accepted
            if isinstance(accepted, IdempotencyConflict):
                conflict = accepted
            if self.bell:
                _ring(self.bell, accepted)
            self.notify_stage(made)
            late += int(too_late)
        if conflict:
            conflict.late = late
            raise conflict
        return late

    def _told(self, reports: Sequence[Report]) -> str:
        told = [
            {
                "id": report.dispatch_id,
                "run": report.run,
                "attempt": report.attempt,
                "losses": report.losses,
                "holder": report.holder,
                "started_ago": int(report.started_ago_s * 1000),
                "elapsed": int(report.elapsed_s * 1000),
                "steps": report.steps,
                "verified": [word for step in report.steps.values() for word in _verified(step)],
                "costs": [
                    _amounts(Cost.of(json.loads(s)["result"])) for s in report.steps.values()
                ],
                **(
                    {"ending": [str(arg) for arg in self._ending_args(report.agent, report.ending)]}
                    if report.ending
                    else {}
                ),
            }
            for report in reports
        ]
        return json.dumps(told, ensure_ascii=False)

    def accept_args(self, event: Event, plan: Plan, *, age_s: float | None = None) -> list[Arg]:
        """One event as `accept.lua` wants it; with an age, one that is accepted already."""
        kept = age_s is not None
        payload = payload_of(event)
        cancels = self.settings.routes.on_member_failure == "cancel" and len(plan.agents) > 1
        args: list[Arg] = [
            *(keys.event_digest(event.key), event.id, event.source, event.sent_by),
            *(event.content, old_digest(event), event.session or ""),
            *(event.priority, payload, plan.reason[:REASON_CHARS_MAX]),
            self._keep_ended_ms if cancels else "",
        ]
        if plan.chain is not None:
            if plan.chain not in self._chains:
                raise ConfigError(f"chains.{plan.chain}: an accepted event needs it: put it back.")
            return args + self._chain_args(event, plan, kept=kept)
        args += ["", *(_NO_CAPS if kept else self._caps), len(plan.agents)]
        for name in plan.agents:
            # One that is no agent any more has no worker either: its dispatch will expire.
            agent = self.settings.agents.get(name, _NO_AGENT)
            deadline_s = agent.retry.deadline_s - (age_s or 0.0)
            args += [keys.dispatch_id(event.key, name), name, int(deadline_s * 1000)]
            drops = agent.overflow == "drop_oldest" and not kept
            # Accepted is accepted: a busy session makes it wait.
            busy = "enqueue" if kept and agent.on_busy == "reject" else agent.on_busy
            args += [_NO_MAX if kept else agent.max_pending, self._keep_ended_ms if drops else ""]
            args += [self._on_busy[busy], receivers.of_agent(self.settings, name, plan)]
        return args

    def _chain_args(self, event: Event, plan: Plan, *, kept: bool) -> list[Arg]:
        """The rest of `accept_args`; nothing refuses an event that the spool has `kept`."""
        chain = self._chains[str(plan.chain)]
        first = [name for name in chain.stages[0].members if not chain.stages[0].person]
        args: list[Arg] = [
            *(plan_text(chain, event, plan, self.settings), *(_NO_CAPS if kept else self._caps)),
            len(first),
        ]
        for name in first:
            agent = self.settings.agents[name]
            busy = "reject" if agent.on_busy == "reject" and not kept else ""
            args += ["", name, 0, _NO_MAX if kept else agent.max_pending, "", busy, ""]
        return args


@dataclass(frozen=True, slots=True)
class _Accepts:
    """A batch as calls, each made when the ones before are already on their way to the server."""

    ledger: ValkeyLedger
    parts: Sequence[Sequence[tuple[Event, Plan]]]

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[list[Arg]]:
        for part in self.parts:
            yield [arg for event, plan in part for arg in self.ledger.accept_args(event, plan)]


def _parts(batch: Sequence[tuple[Event, Plan]]) -> list[list[tuple[Event, Plan]]]:
    """The batch cut so that no call has many dispatches, but for one event to many agents."""
    parts: list[list[tuple[Event, Plan]]] = [[]]
    size = 0
    for event, plan in batch:
        size += len(plan.agents) or 1
        if parts[-1] and size > ACCEPTS_PER_CALL:
            parts.append([])
            size = len(plan.agents) or 1
        parts[-1].append((event, plan))
    return parts


def _amounts(cost: Cost) -> tuple[int, int, str]:
    return cost.tokens_in, cost.tokens_out, f"{cost.usd:.9f}"


def _verified(step: str) -> tuple[str, ...]:
    """How what a step handed over was verified, and why; nothing of any other step."""
    entry = json.loads(step)
    result = entry["result"]
    if "handed_over" not in entry:
        return ()
    return str(result["verification"]), str(result["reason"])


def payload_of(event: Event) -> str:
    """The event as it is stored."""
    wire = event.to_wire()
    if event.sent_by:
        wire[_SENT_BY] = event.sent_by
    return json.dumps(wire, ensure_ascii=False, separators=(",", ":"))


def read_payload(payload: str) -> Event:
    """The event as it was accepted."""
    wire = json.loads(payload)
    sent_by = wire.get(_SENT_BY, SENT_LOCALLY)
    return Event.parse(wire, new_id=wire["id"], now=wire["time"], sent_by=sent_by)


def _ring(bell: WakeupPublisher, answer: Answer) -> None:
    if isinstance(answer, Accepted) and not answer.duplicate:
        for dispatch_id, agent in answer.dispatches:
            # A person has no queue.
            if not agent.startswith(HUMAN_MARK):
                bell(agent, dispatch_id)
