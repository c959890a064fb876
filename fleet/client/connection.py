"""The HTTP connection of a client: time limits, retries, and answers as values or errors.

A call that may be repeated is: the fleet may start again at any time. Any other call is repeated
only where the fleet cannot have seen it.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from fleet.client.refusals import MEDIA_TYPE, Peer, RateLimited
from fleet.client.sse import ServerSentEvent, parse_stream
from fleet.errors import (
    ApiUnreachable,
    BrokerRefusal,
    BrokerUnavailable,
    ConfigError,
    NotAFleet,
    Unknown,
)
from fleet.system.backoff import Backoff
from fleet.system.outgoing import UnusableVariable, client_options
from fleet.version import VERSION

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 5.0
#: A call is repeated for so long; an API starts within a second or two.
RETRY_S = 3.0
#: A stream without a sign of life for so long is broken: the server gives one each 15 s.
SILENCE_S = 40.0
_BACKOFF = Backoff(0.1, 1.0, (0.8, 1.2))
_WITH_SLASHES = frozenset({"events", "tokens"})

Query = Mapping[str, str | int | list[str] | None]


def checked_url(url: str) -> str:
    """A fleet's URL without a slash at its end. Raises ConfigError."""
    try:
        place = urlsplit(url.strip())
        fits = place.scheme in ("http", "https") and bool(place.hostname) and place.port != 0
    except ValueError:
        fits = False
        place = urlsplit("")
    if not fits:
        shown = "" if "@" in url else f" {url[:100]!r}"
        raise ConfigError(
            f"The URL of a fleet{shown} must begin with http:// or https:// and name its host, "
            "such as https://fleet.example:8700."
        )
    if place.username is not None or place.query or place.fragment:
        raise ConfigError(
            "The URL of a fleet must hold no user, query or fragment: give the token apart from it."
        )
    return url.strip().rstrip("/")


def path_of(kind: str, name: str, *more: str) -> str:
    """The path of something with this id or name. Raises Unknown where nothing can have it."""
    # In a path the first three mean others; only ids of events, and names of tokens, have slashes.
    if name in ("", ".", "..") or ("/" in name and kind not in _WITH_SLASHES):
        raise Unknown(f"{name[:64]!r} is not the id or the name of anything in a fleet.")
    return "".join(f"/{quote(part, safe='')}" for part in (kind, name, *more))


class ApiConnection:
    """The calls of one client. httpx is slow to load, and is loaded by the first call."""

    def __init__(self, url: str, token: str | None, timeout_s: float, credential: str) -> None:
        """`timeout_s` is the time limit of one answer. Raises ConfigError."""
        self.peer = Peer(checked_url(url), token, credential)
        self._timeout_s = timeout_s
        self._http: httpx.Client | None = None
        if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
            raise ConfigError(f"{credential}: a token is one line of printable ASCII characters.")

    def close(self) -> None:
        """Close it; a later call opens it again."""
        http, self._http = self._http, None
        if http is not None:
            http.close()

    def get(self, path: str, query: Query | None = None, *, also: tuple[int, ...] = ()) -> Any:
        """The answer of a `GET`; `also` are statuses whose JSON is an answer too."""
        return self.call("GET", path, query=query, repeatable=True, also=also)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        media_type: str = "application/json",
        repeatable: bool = False,
        also: tuple[int, ...] = (),
    ) -> Any:
        """The answer of a call, from JSON. Raises the errors of `Peer.error_of`."""
        content = None if body is None else json.dumps(body).encode()
        until, failures = time.monotonic() + RETRY_S, 0
        while True:
            try:
                return self._call(method, path, query, content, media_type, also)
            except BrokerRefusal:
                raise
            except (BrokerUnavailable, RateLimited) as error:
                failures += 1
                pause_s = _BACKOFF.after_s(failures)
                if isinstance(error, RateLimited):
                    again, pause_s = True, max(pause_s, error.retry_after_s)
                else:
                    unseen = isinstance(error, ApiUnreachable) and not error.sent
                    again = repeatable or unseen
                if not again or time.monotonic() + pause_s > until:
                    raise
                time.sleep(pause_s)

    @contextmanager
    def stream(
        self, path: str, query: Query | None = None, *, after: str | None = None
    ) -> Iterator[Iterator[ServerSentEvent]]:
        """The events of a stream, after the event of the id `after`; once, without a retry.

        The iterator ends with the stream, and raises ApiUnreachable when the connection breaks.
        """
        headers = {"accept": "text/event-stream"} | ({"last-event-id": after} if after else {})
        import httpx

        limits = httpx.Timeout(SILENCE_S, connect=CONNECT_TIMEOUT_S)
        with (
            self._translated(),
            self._client().stream(
                "GET", self._url(path), params=_given(query), headers=headers, timeout=limits
            ) as answer,
        ):
            if not answer.is_success:
                answer.read()
                raise self.peer.error_of(answer.status_code, _problem(answer))
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                raise NotAFleet(f"{self.peer.url} is no fleet: it sends no events; check the URL.")
            yield parse_stream(answer.iter_lines())

    def _call(
        self,
        method: str,
        path: str,
        query: Query | None,
        content: bytes | None,
        media_type: str,
        also: tuple[int, ...],
    ) -> Any:
        headers = {} if content is None else {"content-type": media_type}
        with self._translated():
            answer = self._client().request(
                method, self._url(path), params=_given(query), content=content, headers=headers
            )
            plain = answer.headers.get("content-type", "").partition(";")[0] == "application/json"
            if not (answer.is_success or (plain and answer.status_code in also)):
                raise self.peer.error_of(answer.status_code, _problem(answer))
            try:
                return answer.json()
            except ValueError as error:
                raise NotAFleet(
                    f"{self.peer.url} is no fleet: its answer is not JSON; check the URL."
                ) from error

    def _url(self, path: str) -> str:
        return f"{self.peer.url}{path}"

    def _client(self) -> "httpx.Client":
        if self._http is None:
            import httpx

            try:
                options = client_options(self.peer.url)
            except UnusableVariable as error:
                raise ConfigError(f"{error}.") from error
            token = self.peer.token
            self._http = httpx.Client(
                headers={
                    "user-agent": f"agent-fleet/{VERSION}",
                    **({"authorization": f"Bearer {token}"} if token is not None else {}),
                },
                timeout=httpx.Timeout(self._timeout_s, connect=CONNECT_TIMEOUT_S),
                **options,
            )
        return self._http

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise an error of the transport as ApiUnreachable, or BrokerRefusal for TLS."""
        import httpx

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if _of_tls(error):
                raise BrokerRefusal(
                    f"No TLS with {self.peer.url}: {_cause(error)}; SSL_CERT_FILE names a private "
                    "authority."
                ) from error
            raise ApiUnreachable(
                f"No fleet answers at {self.peer.url} ({_cause(error)}): check the URL, and that "
                "the fleet is up.",
                sent=False,
            ) from error
        except httpx.TimeoutException as error:
            raise ApiUnreachable(
                f"The fleet at {self.peer.url} does not answer in time."
            ) from error
        except httpx.HTTPError as error:
            raise ApiUnreachable(
                f"The connection to the fleet at {self.peer.url} broke ({_cause(error)})."
            ) from error


def _given(query: Query | None) -> dict[str, Any]:
    return {name: value for name, value in (query or {}).items() if value not in (None, [])}


def _problem(answer: "httpx.Response") -> dict[str, Any] | None:
    if answer.headers.get("content-type", "").partition(";")[0] != MEDIA_TYPE:
        return None
    try:
        found = answer.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _of_tls(error: BaseException | None) -> bool:
    import ssl

    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _cause(error: Exception) -> str:
    """The words of the system for an error of a connection."""
    text = " ".join(str(error).split()) or type(error).__name__
    _, mark, rest = text.partition("] ")
    text = rest if text.startswith("[") and mark else text
    return text.partition(" (_ssl.c")[0].rstrip(".").lower() or "no reason is given"
