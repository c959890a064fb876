"""Intake: the one way an event gets in, whichever interface it came through.

An event takes four steps: parse, route, authorize, accept. When `accept` has returned, the event is
stored and will end in an outcome.

An event belongs to its sender: the same source and id of two senders are two events. Each interface
names the sender in a `Sender`; no field of an event can.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain

from fleet import tracing
from fleet.errors import Forbidden, IdempotencyConflict, Refused
from fleet.ledger.protocol import Accepted, Acceptor
from routing import Chain, Event, InvalidEvent, Plan, RoutingError, Rules, decide
from routing.event import (
    RESERVED_SOURCES,
    SENT_BY_FLEET,
    SENT_BY_GATEWAY,
    SENT_LOCALLY,
    check_size,
    is_reserved,
)
from routing.rules import CHAIN_MARK, GROUP_MARK

#: Called with each agent that an event is for; raises Forbidden when its sender may not reach it.
MaySend = Callable[[str], None]
Answer = Accepted | RoutingError | Refused | Forbidden | IdempotencyConflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """The sender of an event, as its interface knows it."""

    sent_by: str = SENT_LOCALLY  #: part of the event's identity
    may: MaySend | None = None  #: without it, the sender may reach every agent
    #: The fleet chose the source, which may therefore be a reserved one.
    own_source: bool = False
    upstream: bool = False  #: the gateway, to which the outcomes go back


#: The command line, a Celery producer, an API without tokens.
LOCAL = Sender()
#: The fleet itself, in an agent's or a chain's name.
FLEET = Sender(sent_by=SENT_BY_FLEET, own_source=True)
UPSTREAM = Sender(sent_by=SENT_BY_GATEWAY, upstream=True)


@dataclass(frozen=True, slots=True)
class Submission:
    """An event before it is parsed, its sender, and the values of fields that it leaves out."""

    raw: object  #: in either wire form
    sender: Sender = LOCAL
    id: str | None = None  #: None: a new one
    traceparent: str = ""
    resent_from: str = ""  #: the dispatch whose event is sent again


_TOO_WIDE = (
    "You may not send to every agent that this event is for: name in `to` those that you may send "
    "to."
)


class Intake:
    """Accepts events for one fleet."""

    def __init__(
        self, acceptor: Acceptor, rules: Rules, chains: Mapping[str, Chain] | None = None
    ) -> None:
        """`chains` are needed where not every sender may reach every agent."""
        self._acceptor = acceptor
        self._rules = rules
        self._chains = chains or {}

    def accept(
        self,
        raw: object,
        sender: Sender = LOCAL,
        *,
        new_id: str | None = None,
        resent_from: str = "",
    ) -> Accepted:
        """Accept one event in either wire form; `new_id` is for an event without an id.

        Raises InvalidEvent, UnknownTarget, Forbidden or IdempotencyConflict (nothing was stored),
        Refused (the sender keeps it) or BrokerUnavailable (nothing is known; the same event may be
        sent again).
        """
        check_size(raw)
        new = Submission(raw, sender, new_id, resent_from=resent_from)
        (answer,) = self.accept_batch([new])
        if isinstance(answer, Accepted):
            return answer
        raise answer

    def plan(self, raw: object, sender: Sender = LOCAL) -> Plan:
        """The plan of an event, as `accept` would make it; keeps nothing.

        Raises InvalidEvent, UnknownTarget or Forbidden.
        """
        check_size(raw)
        planned = self._plan(Submission(raw, sender))
        if isinstance(planned, tuple):
            return planned[1]
        raise planned

    def accept_batch(self, submissions: Sequence[Submission]) -> list[Answer]:
        """Accept each event by itself, in order, in one round trip; answers in the same order.

        Raises BrokerUnavailable; then the whole batch may be sent again.
        """
        planned = [self._plan(one) for one in submissions]
        batch = [one for one in planned if isinstance(one, tuple)]
        accepted = iter(self._acceptor.accept_many(batch) if batch else ())
        return [next(accepted) if isinstance(one, tuple) else one for one in planned]

    def _plan(self, submission: Submission) -> tuple[Event, Plan] | RoutingError | Forbidden:
        sender = submission.sender
        try:
            event = self._parse(submission)
            try:
                event, plan = self._route(event)
            except RoutingError:
                # Who may not send to a target learns nothing of it, not even whether there is one.
                self._authorize(event, chain.from_iterable(map(self._reach, event.to)), sender)
                raise
            self._authorize(event, self._agents(plan), sender)
        except (RoutingError, Forbidden) as error:
            return error
        if sender.upstream:
            plan = replace(plan, upstream=True)
        return event, plan

    def _parse(self, submission: Submission) -> Event:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = Event.parse(
            submission.raw,
            new_id=submission.id or str(uuid.uuid4()),
            now=now,
            traceparent=submission.traceparent,
            lanes=self._rules.lanes,
            sent_by=submission.sender.sent_by,
            resent_from=submission.resent_from,
        )
        if is_reserved(event.source) and not submission.sender.own_source:
            reserved = " or ".join(f"`{prefix}`" for prefix in RESERVED_SOURCES)
            raise InvalidEvent(
                f"`source` must not begin with {reserved}, "
                "which the fleet's own events use; send another source."
            )
        return event

    def _route(self, event: Event) -> tuple[Event, Plan]:
        """The event, now in the trace of this step, and its plan."""
        with tracing.span("fleet.intake", parent=event.traceparent, event_id=event.id) as span:
            plan = decide(event, self._rules)
        if span.traceparent != event.traceparent:
            event = replace(event, traceparent=span.traceparent)
        return event, plan

    def _agents(self, plan: Plan) -> Iterable[str]:
        """All agents that a plan may reach, in whatever stage."""
        return plan.agents if plan.chain is None else self._chains[plan.chain].agents

    def _reach(self, target: str) -> Iterable[str]:
        """The agents of a target; an unknown one counts as an agent that nobody may reach."""
        chain_name = target.removeprefix(CHAIN_MARK)
        if target.startswith(CHAIN_MARK) and chain_name in self._chains:
            return self._chains[chain_name].agents
        return self._rules.targets.members(target) or (target,)

    def _authorize(self, event: Event, agents: Iterable[str], sender: Sender) -> None:
        """Raise Forbidden unless the sender may reach every agent.

        The sentence names an agent only if the sender named it.
        """
        if sender.may is None:
            return
        for agent in agents:
            try:
                sender.may(agent)
            except Forbidden:
                if agent in event.to and not agent.startswith((GROUP_MARK, CHAIN_MARK)):
                    raise
                raise Forbidden(_TOO_WIDE) from None
