"""The errors of the fleet, and the decision that each carries.

FleetError                 one sentence for a person; exit code 1
 |- ConfigError            the configuration is wrong; the sentence names the key; exit code 2
 |- BrokerUnavailable      no broker answers: nothing was accepted, try again (HTTP 503)
 |   |- BrokerRefusal      its password or a certificate is wrong: waiting does not help (HTTP 503)
 |   `- ApiUnreachable     of a client: no fleet answers at its URL, or its connection broke
 |- NotAFleet              of a client: its URL leads to something else, or to another version
 |- Forbidden              the caller's token does not allow it (HTTP 403)
 |   `- TokenRefused       of a client: the fleet does not know its token, or has revoked it
 |- Unknown                there is no such dispatch, event or agent (HTTP 404)
 |- NotPossible            the state of a dispatch does not allow it (HTTP 409)
 |- IdempotencyConflict    a key stands for another event of its sender (HTTP 409)
 |- Refused                a limit refuses the event, and its sender keeps it (HTTP 429)
 |   |- SessionBusy        its session has a turn, and the agent accepts one only (HTTP 409)
 |   `- StoreLost          the store went back, and an operator has not said go on (HTTP 503)
 `- Fenced                 a newer holder has the agent's lease: stop, write nothing
"""


class FleetError(Exception):
    """The base of all errors; the text is one sentence with the remedy."""

    exit_code = 1


class ConfigError(FleetError):
    """The configuration is wrong; nothing was started."""

    exit_code = 2


class BrokerUnavailable(FleetError):
    """The broker refused, timed out or is not running; the caller may try again."""


class BrokerRefusal(BrokerUnavailable):
    """Broker and process do not accept each other, because of a password or a certificate."""


class ApiUnreachable(BrokerUnavailable):
    """A client's fleet does not answer at its URL, or the connection broke."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        """`sent` is False where the fleet cannot have seen the request."""
        super().__init__(message)
        self.sent = sent


class NotAFleet(FleetError):
    """A client's URL leads to something else than a fleet, or to one of another version."""


class Forbidden(FleetError):
    """The caller is known and may not do this; the sentence names the scope that is missing."""


class TokenRefused(Forbidden):
    """The fleet does not know a client's token, or has revoked it; the sentence names the token."""


class Unknown(FleetError):
    """There is no such dispatch, event or agent."""


class NotPossible(FleetError):
    """The state of a dispatch, or what else is known, does not allow it."""


class IdempotencyConflict(FleetError):
    """The sender has used this id for an event with other content; nothing was stored."""

    #: The one sentence; a producer's Celery makes the error anew from it.
    SENTENCE = (
        "This `id`, or idempotency key, stands for an event of yours with other content: send a "
        "new event under a new one."
    )

    def __init__(self, message: str = SENTENCE) -> None:
        super().__init__(message)


class Refused(FleetError):
    """A cap or limit refuses the event; `retry_after_s` says when to try again."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SessionBusy(Refused):
    """The session has a dispatch of an agent with `on_busy = "reject"` (JSON-RPC -32002)."""


class StoreLost(Refused):
    """The store was emptied, or restored from an older backup: the fleet stands still."""

    @classmethod
    def of(cls, reason: str) -> "StoreLost":
        """The sentence; `reason` says what is missing."""
        return cls(
            f"The store has lost what was accepted ({reason}): look at it, then run "
            "`fleet recover`.",
            retry_after_s=10.0,
        )


class Fenced(FleetError):
    """The caller's fencing token is no longer the newest of its agent."""
