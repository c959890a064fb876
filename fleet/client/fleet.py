"""The client: a fleet elsewhere as an object, over its HTTP API."""

import time
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from fleet.client.again import RunsAgain
from fleet.client.alerts import FleetAlerts
from fleet.client.connection import ApiConnection, path_of
from fleet.client.sse import ServerSentEvent, entry_of, place_of
from fleet.errors import BrokerUnavailable, FleetError
from fleet.system.backoff import Backoff

#: What the API says of something: an object of JSON, as `reference/http.md` describes it.
Record = dict[str, Any]

#: Of one answer.
TIMEOUT_S = 30.0
#: One event, never a batch.
_EVENT_TYPE = "application/cloudevents+json"
_BACKOFF = Backoff(0.2, 3.0, (0.8, 1.2))
_PAGE_MAX = 1000
#: Pages of one call: a token may see few of the dispatches on each.
_PAGES_MAX = 100
#: The states that a dispatch ends in.
ENDED = frozenset({"cancelled", "completed", "dead", "dropped", "expired"})


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An accepted event: it will end, in an outcome for each of its dispatches."""

    event_id: str
    dispatches: tuple[tuple[str, str], ...]  #: (dispatch id, agent)
    duplicate: bool  #: True where the same event was accepted before
    chain: str | None = None  #: then `dispatches` are those of its first stage
    chain_id: str | None = None


class Fleet(RunsAgain):
    """A fleet at a URL. Threads may share it; also a context manager, which closes it.

    Each call raises FleetError or RoutingError with one sentence. What may be repeated is, for a
    few seconds; an event is sent under one id, so it is accepted once, however often it is sent.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = TIMEOUT_S,
        credential: str = "the token",
    ) -> None:
        """Raises ConfigError. `timeout_s` limits one answer; errors call the token `credential`."""
        self._connection = ApiConnection(url, token, timeout_s, credential)

    @property
    def url(self) -> str:
        """The URL, without a slash at its end."""
        return self._connection.peer.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    # Events

    def send(
        self,
        text: str,
        *,
        to: str | Sequence[str] | None = None,
        session: str | None = None,
        lane: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> SentEvent:
        """Send a text."""
        targets = to if to is None or isinstance(to, str) else list(to)
        options = {"to": targets, "session": session, "lane": lane, "priority": priority}
        given = {name: value for name, value in options.items() if value is not None}
        return self.send_event({"text": text, **given, "id": idempotency_key or str(uuid.uuid4())})

    def send_event(self, event: object) -> SentEvent:
        """Send an event in either wire form; without an `id` it gets one here."""
        if isinstance(event, Mapping):
            event = {"id": str(uuid.uuid4()), **event}
        # A CloudEvent has this media type by its standard; it is never taken for a batch.
        answer: Record = self._connection.call(
            "POST", "/events", body=event, media_type=_EVENT_TYPE, repeatable=True
        )
        pairs = ((one["dispatch_id"], one["agent"]) for one in answer["dispatches"])
        return SentEvent(
            event_id=answer["event_id"],
            dispatches=tuple(pairs),
            duplicate=answer["duplicate"],
            chain=answer.get("chain"),
            chain_id=answer.get("chain_id"),
        )

    def ask(self, text: str, *, timeout_s: float | None = None, **options: Any) -> str:
        """Send a text to one agent and wait for its answer; `options` are those of `send`.

        Raises FleetError for any other outcome.
        """
        sent = self.send(text, **options)
        if len(sent.dispatches) != 1 or sent.chain:
            raise FleetError("`ask` is for one agent: use `send` and `wait` for several.")
        record = self.wait(sent.dispatches[0][0], timeout_s)
        if record["state"] != "completed":
            why = ": ".join(str(record[name]) for name in ("stage", "error") if name in record)
            raise FleetError(f"{record['agent']}: {record['state']}{f' ({why})' if why else ''}")
        return str(record.get("answer") or "")

    def wait(self, dispatch_id: str, timeout_s: float | None = None) -> Record:
        """The dispatch once it has ended, with its answer; outlasts a restart of the fleet.

        Raises ApiUnreachable when the fleet is away at the end of `timeout_s`, and FleetError when
        the dispatch has not ended by then.
        """
        until = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        failures = 0
        while True:
            pause_s, failure = 0.5, None
            try:
                record = self.dispatch(dispatch_id, content=True)
                failures = 0
                if record["state"] in ENDED:
                    return record
            except BrokerUnavailable as error:
                failures, failure = failures + 1, error
                pause_s = _BACKOFF.after_s(failures)
            if time.monotonic() + pause_s > until:
                raise failure or FleetError(
                    f"{dispatch_id} has not ended after {timeout_s:g} s: it goes on."
                )
            time.sleep(pause_s)

    def event(
        self,
        event_id: str,
        *,
        source: str | None = None,
        sent_by: str | None = None,
        content: bool = False,
    ) -> Record:
        """One event with its members. Raises Unknown."""
        query = {"source": source, "sent_by": sent_by, "content": _flag(content)}
        found: Record = self._connection.get(path_of("events", event_id), query)
        return found

    def route(self, event: object) -> Record:
        """The agents that an event would reach, and why; nothing is sent."""
        found: Record = self._connection.call("POST", "/route", body=event, repeatable=True)
        return found

    # Dispatches

    def dispatch(self, dispatch_id: str, *, content: bool = False) -> Record:
        """One dispatch. Raises Unknown."""
        query = {"content": _flag(content)}
        found: Record = self._connection.get(path_of("dispatches", dispatch_id), query)
        return found

    def dispatches(
        self,
        *,
        agent: str | None = None,
        states: Sequence[str] = (),
        limit: int = 20,
        cursor: str | None = None,
    ) -> tuple[list[Record], str | None]:
        """Up to `limit` dispatches, newest first, and the cursor of the next ones.

        There may be fewer before the end, where the token may not read most of them.
        """
        found: list[Record] = []
        for _ in range(_PAGES_MAX):
            query = {
                "agent": agent,
                "state": list(states),
                "limit": min(limit - len(found), _PAGE_MAX),
                "cursor": cursor,
            }
            page: Record = self._connection.get("/dispatches", query)
            found += page["dispatches"]
            cursor = page["cursor"]
            if cursor is None or len(found) >= limit:
                break
        return found, cursor

    def cancel(self, dispatch_id: str, reason: str = "", *, now: bool = False) -> str:
        """Cancel a dispatch; the state it is in now."""
        answer = self._connection.call(
            "POST",
            path_of("dispatches", dispatch_id, "cancel"),
            query={"now": _flag(now)},
            body={"reason": reason} if reason else {},
            repeatable=True,
        )
        return str(answer["state"])

    def retry(self, dispatch_id: str) -> str:
        """Queue a dead dispatch again; the state it is in now."""
        answer = self._connection.call("POST", path_of("dispatches", dispatch_id, "retry"))
        return str(answer["state"])

    def decide(
        self, dispatch_id: str, verdict: Literal["approve", "reject"], reason: str, by: str = ""
    ) -> Record:
        """Approve or reject a parked dispatch; a token decides in its own name, not as `by`."""
        answer: Record = self._connection.call(
            "POST",
            path_of("dispatches", dispatch_id, verdict),
            body={"reason": reason, **({"by": by} if by else {})},
        )
        return answer

    def approve(self, dispatch_id: str, reason: str = "", by: str = "") -> Record:
        """Approve a parked dispatch: its chain goes on."""
        return self.decide(dispatch_id, "approve", reason, by)

    def reject(self, dispatch_id: str, reason: str, by: str = "") -> Record:
        """Reject a parked dispatch: its chain ends."""
        return self.decide(dispatch_id, "reject", reason, by)

    def purge_dead_letters(self) -> int:
        """Forget every dead letter, but those of which a receiver is still to be told."""
        return int(self._connection.call("POST", "/dead-letters/purge")["purged"])

    def chain(self, chain_id: str) -> Record:
        """The state of a chain, and its dispatches so far. Raises Unknown."""
        found: Record = self._connection.get(path_of("chains", chain_id))
        return found

    # Agents

    def agents(self, names: Sequence[str] = ()) -> list[Record]:
        """The agents that the token may see, or those of these names."""
        found: list[Record] = self._connection.get("/agents", {"agent": list(names)})["agents"]
        return found

    def agent(self, name: str) -> Record:
        """One agent. Raises Unknown."""
        found: Record = self._connection.get(path_of("agents", name))
        return found

    def pause(self, agent: str) -> list[Record]:
        """Pause an agent, or `all`."""
        return self._switch(agent, "pause")

    def resume(self, agent: str) -> list[Record]:
        """Resume an agent, or `all`."""
        return self._switch(agent, "resume")

    def _switch(self, agent: str, verb: str) -> list[Record]:
        path = path_of("agents", agent, verb)
        found: list[Record] = self._connection.call("POST", path)["agents"]
        return found

    @property
    def alerts(self) -> FleetAlerts:
        """The alerts."""
        return FleetAlerts(self._connection)

    def cancel_waiting(self, agent: str, reason: str = "") -> int:
        """Cancel everything that waits for an agent; how many."""
        body = {"reason": reason} if reason else {}
        path = path_of("agents", agent, "cancel")
        return int(self._connection.call("POST", path, body=body)["cancelled"])

    def move_waiting(self, agent: str, to: str) -> dict[str, int]:
        """Give what waits for an agent to another; how many in each state."""
        path = path_of("agents", agent, "move")
        moved: dict[str, int] = self._connection.call("POST", path, body={"to": to})["moved"]
        return moved

    # The fleet

    def health(self) -> Record:
        """The health document, also of a fleet that is down."""
        found: Record = self._connection.get("/health", also=(503,))
        return found

    def tokens(self) -> list[Record]:
        """The tokens, newest first; never their secrets."""
        found: list[Record] = self._connection.get("/tokens")["tokens"]
        return found

    def create_token(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        rate_per_s: float | None = None,
        body_bytes: int | None = None,
    ) -> Record:
        """Create a token; its text is in `token`, this once."""
        body = {"name": name, "scopes": list(scopes)}
        limits = {"rate_per_s": rate_per_s, "body_bytes": body_bytes}
        given = {name: value for name, value in limits.items() if value is not None}
        made: Record = self._connection.call("POST", "/tokens", body=body | given)
        return made

    def revoke_token(self, which: str) -> list[Record]:
        """Revoke the token of this id, or all of this name; those revoked now. Raises Unknown."""
        path = path_of("tokens", which)
        found: list[Record] = self._connection.call("DELETE", path, repeatable=True)["revoked"]
        return found

    # The bus and the live text

    def bus_page(self, after: str, limit: int = _PAGE_MAX) -> Record:
        """Stored entries after a stream id: `entries`, `next`, and `last`, the newest there is."""
        found: Record = self._connection.get("/bus/entries", {"after": after, "limit": limit})
        return found

    def events(
        self, after: str | None = None, *, timeout_s: float | None = None
    ) -> Generator[Record, None, None]:
        """The bus's entries after the cursor `after`, else the next ones, for ever.

        Reconnects where it was. Raises ApiUnreachable when the fleet is away for `timeout_s`.
        """
        failures, away_since = 0, 0.0
        while True:
            try:
                with self.follow(after) as stream:
                    for one in stream:
                        failures, away_since = 0, 0.0
                        if not one.name:
                            after = after or place_of(one)
                        elif one.data:
                            after = one.id or after
                            yield entry_of(one)
            except BrokerUnavailable:
                away_since = away_since or time.monotonic()
                if timeout_s is not None and time.monotonic() - away_since > timeout_s:
                    raise
            failures += 1
            time.sleep(_BACKOFF.after_s(failures))

    def follow(self, after: str | None = None) -> AbstractContextManager[Iterator[ServerSentEvent]]:
        """One connection to the bus; `place_of` its first comment is the place it begins at."""
        return self._connection.stream("/bus", after=after)

    def stream(self, dispatch_id: str) -> Iterator[str]:
        """The text of a turn as it grows, until it ends; a step that begins anew comes again.

        `listen` says more.
        """
        with self.listen(dispatch_id) as stream:
            for one in stream:
                if one.name == "token":
                    yield str(entry_of(one)["text"])

    def listen(
        self, dispatch_id: str, after: str | None = None
    ) -> AbstractContextManager[Iterator[ServerSentEvent]]:
        """One connection to a turn's live text: `token`, `reset`, `resync`, then `outcome`."""
        return self._connection.stream(path_of("dispatches", dispatch_id, "stream"), after=after)


def _flag(value: bool) -> str | None:
    return "1" if value else None
