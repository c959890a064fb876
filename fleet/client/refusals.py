"""The answers of an API that are no success, as the errors that a caller catches."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fleet.errors import (
    ApiUnreachable,
    BrokerUnavailable,
    FleetError,
    Forbidden,
    IdempotencyConflict,
    NotAFleet,
    NotPossible,
    Refused,
    SessionBusy,
    StoreLost,
    TokenRefused,
    Unknown,
)
from fleet.version import VERSION
from routing.errors import InvalidEvent, RoutingError, TooManyHops, UnknownTarget

MEDIA_TYPE = "application/problem+json"
RATE_LIMIT = "rate-limit"
_CODE = "urn:fleet:problem:"

#: Problem code -> the error whose text is the problem's sentence.
_ERRORS: Mapping[str, Callable[[str], Exception]] = {
    "idempotency-conflict": IdempotencyConflict,
    "invalid-event": InvalidEvent,
    "missing-scope": Forbidden,
    "not-found": Unknown,
    "not-possible": NotPossible,
    "not-ready": BrokerUnavailable,
    "too-many-hops": TooManyHops,
    "unavailable": BrokerUnavailable,
    "unknown-target": UnknownTarget,
}
#: Those that say when to try again.
_LIMITS: Mapping[str, type[Refused]] = {
    RATE_LIMIT: Refused,
    "refused": Refused,
    "session-busy": SessionBusy,
    "store-lost": StoreLost,
}
#: Statuses of a proxy whose server starts again.
_OF_PROXY = frozenset({502, 503, 504})


class RateLimited(Refused):
    """The token has sent too much: the fleet has done nothing, and may be asked again."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The fleet that a client speaks with, in the words of its errors."""

    url: str
    token: str | None
    credential: str  #: such as `the token of context prod`

    def error_of(self, status: int, problem: Mapping[str, Any] | None) -> FleetError | RoutingError:
        """The error of an answer; `problem` is its problem document, None where it has none."""
        if problem is None:
            return self._strange(status)
        code = str(problem.get("type", "")).removeprefix(_CODE)
        text = str(problem.get("detail") or f"The fleet refused with status {status}.")
        if code == "no-route":
            return NotAFleet(
                f"The fleet at {self.url} does not know this call: its version is another one than "
                f"this client's, which is {VERSION}; update the older one."
            )
        if status == 401:
            return TokenRefused(self._refused(code))
        if code == RATE_LIMIT:
            return RateLimited(text, retry_after_s=_seconds(problem))
        if code in _LIMITS:
            return _LIMITS[code](text, retry_after_s=_seconds(problem))
        error = _ERRORS.get(code, FleetError)(text)
        assert isinstance(error, FleetError | RoutingError)  # noqa: S101 - of the table
        return error

    def _strange(self, status: int) -> FleetError:
        if status in _OF_PROXY:
            return ApiUnreachable(
                f"Before {self.url} a proxy answers {status}: no fleet is behind it."
            )
        if 300 <= status < 400:
            return NotAFleet(
                f"{self.url} leads elsewhere (status {status}): give the URL that it leads to."
            )
        return NotAFleet(f"{self.url} is no fleet: it answers with status {status}; check the URL.")

    def _refused(self, code: str) -> str:
        name = f"{self.credential[:1].upper()}{self.credential[1:]}"
        if self.token is None:
            return (
                f"The fleet at {self.url} needs a token: `fleet token create` on its machine "
                "makes one."
            )
        if code == "token-revoked":
            return f"{name} was revoked at {self.url}: have another made by `fleet token create`."
        return f"{name} is none of the fleet at {self.url}: check the token and the URL."


def _seconds(problem: Mapping[str, Any]) -> float:
    given = problem.get("retry_after_s")
    return float(given) if isinstance(given, int | float) else 1.0
