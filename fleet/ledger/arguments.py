"""Settings, events, plans and endings as arguments of the ledger's scripts."""

import json
import random
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from fleet.config.agents import AgentConfig, RetryConfig
from fleet.config.deliveries import UPSTREAM, DeliveryConfig
from fleet.config.settings import Settings
from fleet.errors import ConfigError
from fleet.ledger.failures import failure_text
from fleet.ledger.protocol import Cost, Ending, Report
from fleet.store import keys
from fleet.store.calls import DispatchArgs, EndingArgs, EventArgs
from routing import Chain, Event, Plan
from routing.chains import Stage
from routing.event import SENT_BY_FLEET, SENT_LOCALLY, event_key

#: Of a route, in its event's record: a list of a thousand targets would fill the store.
REASON_CHARS_MAX = 200
#: Of a history's stored message: near enough for a bound (English is 4 to 5 bytes a token, Chinese
#: about 4), and no model's own counter has to be loaded for it.
BYTES_PER_TOKEN = 4
#: The sender of a stored event, beside the fields that its sender sent.
SENT_BY = "sentby"
#: The dispatch whose event was sent again as a stored one, likewise.
RESENT_FROM = "resentfrom"
#: Made once: `json.dumps` makes an encoder for each text.
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
#: Receives every outcome, as `_announce.lua` has it.
_ALL = "*"
#: More than can ever wait.
_NO_MAX = 2**50
_NO_AGENT = AgentConfig(runner="python", python="nobody:nothing")


class Arguments:
    """Makes arguments under one configuration, whose limits are read once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._chains = settings.routing_chains()
        self._keep_ended_ms = int(settings.retention.completed_s * 1000)
        self._keep_dead_ms = int(settings.retention.dead_s * 1000)
        sessions = settings.sessions
        self._bytes_max = sessions.history_tokens * BYTES_PER_TOKEN
        self._history_keep_ms = int(sessions.history_ttl_s * 1000)
        window_ms, most_ms = (
            int(seconds * 1000) for seconds in (sessions.coalesce_window_s, sessions.coalesce_max_s)
        )
        caps = settings.caps
        self._max_waiting = caps.max_waiting
        self._store_memory = caps.store_memory
        self._sender_per_minute: int | Literal[""] = caps.sender_per_minute or ""
        self._on_busy = {
            "enqueue": "",
            "reject": "reject",
            "interrupt": f"interrupt {self._keep_ended_ms}",
            "coalesce": f"coalesce {window_ms} {most_ms}",
        }

    def event(self, event: Event, plan: Plan, *, age_s: float | None = None) -> EventArgs:
        """One event as `_accept.lua` reads it; with an age, one that is accepted already."""
        kept = age_s is not None
        cancels = self.settings.routes.on_member_failure == "cancel" and len(plan.agents) > 1
        chain_plan = ""
        if plan.chain is not None:
            if plan.chain not in self._chains:
                raise ConfigError(f"chains.{plan.chain}: an accepted event needs it: put it back.")
            chain_plan = plan_text(self._chains[plan.chain], event, plan, self.settings)
            dispatches = self._first_stage(self._chains[plan.chain], kept=kept)
        else:
            dispatches = [self._dispatch_args(event, plan, name, age_s) for name in plan.agents]
        return EventArgs(
            digest=keys.event_digest(event.key),
            event_id=event.id,
            source=event.source,
            sent_by=event.sent_by,
            content=event.content,
            old_digest=old_digest(event),
            session=event.session or "",
            priority=event.priority,
            payload=payload_of(event),
            route=plan.reason[:REASON_CHARS_MAX],
            cancel_keep_ms=self._keep_ended_ms if cancels else "",
            plan=chain_plan,
            store_memory=self._store_memory,
            max_waiting=_NO_MAX if kept else self._max_waiting,
            sender_per_minute="" if kept else self._sender_per_minute,
            resent_from=event.resent_from,
            dispatches=dispatches,
        )

    def _dispatch_args(
        self, event: Event, plan: Plan, name: str, age_s: float | None
    ) -> DispatchArgs:
        kept = age_s is not None
        # A name without an agent has no worker either: its dispatch will expire.
        agent = self.settings.agents.get(name, _NO_AGENT)
        deadline_s = agent.retry.deadline_s - (age_s or 0.0)
        drops = agent.overflow == "drop_oldest" and not kept
        # Accepted is accepted: a busy session makes it wait.
        busy = "enqueue" if kept and agent.on_busy == "reject" else agent.on_busy
        return DispatchArgs(
            id=keys.dispatch_id(event.key, name),
            agent=name,
            deadline_ms=int(deadline_s * 1000),
            max_pending=_NO_MAX if kept else agent.max_pending,
            drop_keep_ms=self._keep_ended_ms if drops else "",
            on_busy=self._on_busy[busy],
            deliver=agent_receivers(self.settings, name, plan),
        )

    def _first_stage(self, chain: Chain, *, kept: bool) -> list[DispatchArgs]:
        """The checks before a chain begins; nothing refuses an event that is `kept`."""
        stage = chain.stages[0]
        agents = {name: self.settings.agents[name] for name in stage.members if not stage.person}
        return [
            DispatchArgs(
                id="",
                agent=name,
                deadline_ms=0,
                max_pending=_NO_MAX if kept else agent.max_pending,
                drop_keep_ms="",
                on_busy="reject" if agent.on_busy == "reject" and not kept else "",
                deliver="",
            )
            for name, agent in agents.items()
        ]

    def ending(
        self, agent: str, ending: Ending, messages: tuple[str, str] = ("", "")
    ) -> EndingArgs:
        """The end of an attempt, as `_ending.lua` reads it."""
        failure = ending.failure
        facts = {name: str(value) for name, value in ending.facts.items()}
        if failure and failure.kind:
            facts["error_kind"] = failure.kind
        text = json.dumps(facts, ensure_ascii=False)
        retry = (
            self.settings.agents[agent].retry if agent in self.settings.agents else RetryConfig()
        )
        retry_after_s = (failure.retry_after_s or 0.0) if failure else 0.0
        messages_max = self.settings.sessions.history_messages
        user_message, agent_message = messages if messages_max else ("", "")
        return EndingArgs(
            verdict=_verdict(ending),
            fields=text,
            answer=ending.answer,
            stage=failure.stage if failure else "",
            reason=failure.reason if failure else ending.cancelled,
            failure=failure_text(failure) if failure else "",
            retryable=1 if failure and failure.retryable else 0,
            attempts_max=retry.attempts,
            min_age_ms=int(retry.min_age_s * 1000),
            backoff_ms=int(retry.backoff_s * 1000),
            jitter=f"{random.random():.6f}",  # noqa: S311 - spreads load, guards nothing
            retry_after_ms=int(retry_after_s * 1000),
            keep_dead_ms=self._keep_dead_ms,
            keep_ended_ms=self._keep_ended_ms,
            user_message=user_message,
            agent_message=agent_message,
            messages_max=messages_max,
            bytes_max=self._bytes_max,
            history_keep_ms=self._history_keep_ms,
        )

    def reports(self, reports: Sequence[Report]) -> str:
        """The runs of an event's dispatches, as `backfill.lua` reads them."""
        return json.dumps([self._report(report) for report in reports], ensure_ascii=False)

    def _report(self, report: Report) -> dict[str, Any]:
        steps = report.steps.values()
        found = {
            "id": report.dispatch_id,
            "run": report.run,
            "attempt": report.attempt,
            "losses": report.losses,
            "holder": report.holder,
            "started_ago": int(report.started_ago_s * 1000),
            "elapsed": int(report.elapsed_s * 1000),
            "steps": report.steps,
            "verified": [word for step in steps for word in _verified(step)],
            "costs": [_amounts(Cost.of(json.loads(step)["result"])) for step in steps],
        }
        if report.ending:
            ending = vars(self.ending(report.agent, report.ending))
            found["ending"] = {name: str(value) for name, value in ending.items()}
        return found


def payload_of(event: Event) -> str:
    """The event as it is stored."""
    wire = event.to_wire()
    if event.sent_by:
        wire[SENT_BY] = event.sent_by
    if event.resent_from:
        wire[RESENT_FROM] = event.resent_from
    return _compact(wire)


def old_digest(event: Event) -> str:
    """The digest under which a version before senders kept a door's event, if another one."""
    if event.sent_by in (SENT_LOCALLY, SENT_BY_FLEET):
        return ""
    return keys.event_digest(event_key(event.source, event.id))


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
        "deliver": chain_receivers(settings, chain.name, plan),
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


def agent_receivers(settings: Settings, agent: str, plan: Plan) -> str:
    """The receivers of one dispatch, as `_announce.lua` wants them: name, ms, outcomes, ...

    Receivers are fixed when an event is accepted. A change of the configuration is for later
    events, except a receiver's address and secret.
    """
    known = settings.agents.get(agent)
    return _receivers(settings, known.deliver if known else (), plan)


def chain_receivers(settings: Settings, chain: str, plan: Plan) -> str:
    """The receivers of a chain's end, in the same form."""
    return _receivers(settings, settings.chains[chain].deliver, plan)


def _receivers(settings: Settings, names: Iterable[str], plan: Plan) -> str:
    found = [_receiver(name, settings.deliveries[name]) for name in names]
    upstream = settings.upstream
    if plan.upstream and upstream.outcomes:
        found.append(f"{UPSTREAM} {int(upstream.deadline_s * 1000)} {_ALL}")
    return " ".join(found)


def _receiver(name: str, delivery: DeliveryConfig) -> str:
    return f"{name} {int(delivery.deadline_s * 1000)} {','.join(delivery.on) or _ALL}"


def turn_messages(event: Event, agent: str, text: str, answer: str) -> tuple[str, str]:
    """The two messages that a completed turn adds, as they are stored: event and answer."""
    digest = keys.event_digest(event.key)
    question = {"role": "user", "agent": "", "event": digest, "text": text}
    answered = {"role": "assistant", "agent": agent, "event": digest, "text": answer}
    return _message(question), _message(answered)


def _message(message: dict[str, str]) -> str:
    return _compact(message)


def _verdict(ending: Ending) -> Literal["completed", "failed", "cancelled", "held"]:
    if ending.failure:
        return "held" if ending.failure.defer else "failed"
    return "cancelled" if ending.cancelled else "completed"


def dollars(cost: Cost) -> str:
    """The cost in dollars, as the scripts add it up."""
    return f"{cost.usd:.9f}"


def _amounts(cost: Cost) -> tuple[int, int, str]:
    return cost.tokens_in, cost.tokens_out, dollars(cost)


def _verified(step: str) -> tuple[str, ...]:
    """The verification of a step's delivery, and its reason; empty for any other step."""
    entry = json.loads(step)
    result = entry["result"]
    if "handed_over" not in entry:
        return ()
    return str(result["verification"]), str(result["reason"])
