"""Routing: the agents of an event, in order. Pure: no I/O, no clock, no Celery, no Redis."""

from routing.chains import Chain, StageRule, Verdict, read_verdict
from routing.errors import InvalidEvent, InvalidRoute, RoutingError, TooManyHops, UnknownTarget
from routing.event import Event
from routing.rules import Plan, Rules, decide, explain
from routing.table import Rule

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
