"""The errors of routing.

RoutingError
 |- InvalidEvent    the event itself is malformed (HTTP 400)
 |   `- TooManyHops it went through more agents than the fleet allows (HTTP 400)
 |- UnknownTarget   it names an agent or a group that does not exist (HTTP 404)
 `- InvalidRoute    the route table is invalid; raised when it is read, never for an event
"""


class RoutingError(ValueError):
    """One sentence for the sender, without any of the event's content."""


class InvalidEvent(RoutingError):
    """The event is malformed; the sentence names the field and what to change."""


class TooManyHops(InvalidEvent):
    """The event went through more agents' turns than `routes.max_hops` allows: a loop."""


class UnknownTarget(RoutingError):
    """The event names a target that this fleet does not have.

    The sentence guesses at no other name: a sender may not be allowed to know them.
    """

    def __init__(self, message: str, target: str = "") -> None:
        super().__init__(message)
        self.target = target


class InvalidRoute(RoutingError):
    """The route table names something that does not exist; the sentence names the key."""
