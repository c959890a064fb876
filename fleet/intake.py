"""Intake: the one way an event gets in, whatever door it came through.

Validate, decide, accept. When `accept` has returned, the event is in the ledger and will end.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from fleet import tracing
from fleet.errors import Forbidden, Refused
from fleet.ledger.protocol import Accepted, Acceptor
from routing import Chain, Event, Plan, RoutingError, Rules, decide

#: Called with each agent that an event is for; raises Forbidden when its sender may not reach it.
MaySend = Callable[[str], None]
Answer = Accepted | RoutingError | Refused | Forbidden


class Intake:
    """Accepts events for one fleet."""

    def __init__(
        self, ledger: Acceptor, rules: Rules, chains: Mapping[str, Chain] | None = None
    ) -> None:
        """`chains` are needed where not every sender may reach every agent."""
        self._ledger = ledger
        self._rules = rules
        self._chains = chains or {}

    def accept(self, raw: object, *, upstream: bool = False) -> Accepted:
        """Accept one event in either wire form; `upstream` says that it came from the gateway.

        Raises InvalidEvent or UnknownTarget (nothing was kept), Refused (the sender keeps it) or
        BrokerUnavailable (nothing is known; the same event may be sent again).
        """
        event, plan = self._plan(raw)
        return self._ledger.accept(event, replace(plan, upstream=upstream))

    def accept_batch(
        self, raws: Sequence[object], may: Sequence[MaySend | None] = ()
    ) -> list[Answer]:
        """Accept each event by itself, in order, in one round trip; answers in the same order.

        `may` says for each event what its sender is allowed; without it, everything. Raises
        BrokerUnavailable; then the whole batch may be sent again.
        """
        answers: list[Answer] = []
        planned: list[tuple[Event, Plan]] = []
        places: list[int] = []
        for place, raw in enumerate(raws):
            try:
                event, plan = self._plan(raw)
                if may and (check := may[place]):
                    for agent in self._reached(plan):
                        check(agent)
                planned.append((event, plan))
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

    def _plan(self, raw: object) -> tuple[Event, Plan]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = Event.parse(raw, new_id=str(uuid.uuid4()), now=now, lanes=self._rules.lanes)
        with tracing.span("fleet.intake", parent=event.traceparent, event_id=event.id) as span:
            plan = decide(event, self._rules)
        if span.traceparent != event.traceparent:
            event = replace(event, traceparent=span.traceparent)
        return event, plan
