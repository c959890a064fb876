"""Intake: the one way an event gets in, whatever door it came through.

Validate, decide, accept. When `accept` has returned, the event is in the ledger and will end.

An event belongs to its sender: its source and id are told apart from those of everybody else. Each
door says who that is, in a `Sender`; nothing in an event can.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from fleet import tracing
from fleet.errors import Forbidden, IdempotencyConflict, Refused
from fleet.ledger.protocol import Accepted, Acceptor
from routing import Chain, Event, InvalidEvent, Plan, RoutingError, Rules, decide
from routing.event import (
    RESERVED_SOURCES,
    SENT_BY_FLEET,
    SENT_BY_GATEWAY,
    SENT_LOCALLY,
    is_reserved,
)

#: Called with each agent that an event is for; raises Forbidden when its sender may not reach it.
MaySend = Callable[[str], None]
Answer = Accepted | RoutingError | Refused | Forbidden | IdempotencyConflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """The sender of an event, as its door knows it."""

    sent_by: str = SENT_LOCALLY  #: part of the event's identity
    may: MaySend | None = None  #: without it, everything
    #: The fleet chose the source, which may therefore be a reserved one.
    own_source: bool = False
    upstream: bool = False  #: the gateway, to which the outcomes go back


#: The command line, a Celery producer, an API without tokens.
LOCAL = Sender()
#: The fleet itself, in an agent's or a chain's name.
FLEET = Sender(sent_by=SENT_BY_FLEET, own_source=True)
UPSTREAM = Sender(sent_by=SENT_BY_GATEWAY, upstream=True)


class Intake:
    """Accepts events for one fleet."""

    def __init__(
        self, ledger: Acceptor, rules: Rules, chains: Mapping[str, Chain] | None = None
    ) -> None:
        """`chains` are needed where not every sender may reach every agent."""
        self._ledger = ledger
        self._rules = rules
        self._chains = chains or {}

    def accept(self, raw: object, sender: Sender = LOCAL) -> Accepted:
        """Accept one event in either wire form.

        Raises InvalidEvent, UnknownTarget, Forbidden or IdempotencyConflict (nothing was kept),
        Refused (the sender keeps it) or BrokerUnavailable (nothing is known; the same event may be
        sent again).
        """
        return self._ledger.accept(*self._plan(raw, sender))

    def accept_batch(self, raws: Sequence[object], senders: Sequence[Sender] = ()) -> list[Answer]:
        """Accept each event by itself, in order, in one round trip; answers in the same order.

        `senders` are those of the events, in the same order; without them each is local. Raises
        BrokerUnavailable; then the whole batch may be sent again.
        """
        answers: list[Answer] = []
        planned: list[tuple[Event, Plan]] = []
        places: list[int] = []
        for place, raw in enumerate(raws):
            try:
                planned.append(self._plan(raw, senders[place] if senders else LOCAL))
                places.append(place)
            except (RoutingError, Forbidden) as error:
                answers.append(error)
                continue
            answers.append(Refused("not yet accepted"))
        if planned:
            for place, answer in zip(places, self._ledger.accept_many(planned), strict=True):
                answers[place] = answer
        return answers

    def _reached(self, plan: Plan) -> tuple[str, ...]:
        """Every agent that will be told of the event, in whatever stage."""
        return plan.agents if plan.chain is None else self._chains[plan.chain].agents

    def _plan(self, raw: object, sender: Sender) -> tuple[Event, Plan]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = Event.parse(
            raw,
            new_id=str(uuid.uuid4()),
            now=now,
            lanes=self._rules.lanes,
            sent_by=sender.sent_by,
        )
        if is_reserved(event.source) and not sender.own_source:
            raise InvalidEvent(
                f"`source` must not begin with {', '.join(RESERVED_SOURCES)}: so begin those of "
                "the fleet's own events."
            )
        with tracing.span("fleet.intake", parent=event.traceparent, event_id=event.id) as span:
            plan = decide(event, self._rules)
        if sender.may:
            for agent in self._reached(plan):
                sender.may(agent)
        if span.traceparent != event.traceparent:
            event = replace(event, traceparent=span.traceparent)
        return event, replace(plan, upstream=sender.upstream)
