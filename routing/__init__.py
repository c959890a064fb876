"""Routing: the agents of an event, in order. Pure: no I/O, no clock, no Celery, no Redis."""

from routing.chains import Chain, StageRule, Verdict, read_verdict
from routing.decide import Plan, decide, explain
from routing.errors import InvalidEvent, InvalidRoute, RoutingError, TooManyHops, UnknownTarget
from routing.event import Event
from routing.rule import Rule
from routing.rules import Rules

__all__ = [
    "Chain",
    "Event",
    "InvalidEvent",
    "InvalidRoute",
    "Plan",
    "RoutingError",
    "Rule",
    "Rules",
    "StageRule",
    "TooManyHops",
    "UnknownTarget",
    "Verdict",
    "decide",
    "explain",
    "read_verdict",
]
