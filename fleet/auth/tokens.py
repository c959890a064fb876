"""API tokens and their rights over HTTP. The secret is shown once; the store has its SHA-256.

A token is `fleet_<id>_<secret>`. The secret is 32 random bytes, so a plain hash suffices: nobody
can guess the secret. A ticket stands for a token once, within half a minute, where a browser must
put it into a URL that may be logged.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from fleet.errors import FleetError, Forbidden
from fleet.store import Store, keys
from fleet.store.calls import TicketCall, TokenCall
from fleet.store.connection import reachable
from routing.event import SENT_BY_FLEET, SENT_BY_GATEWAY, SENT_LOCALLY

TICKET_S = 30
ID_PREFIX_CHARS_MIN = 6
NAME_CHARS_MAX = 64
EVERYONE = "*"

_TEXT = re.compile(r"fleet_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_PLAIN_SCOPES = ("operate", "admin")


class TokenError(FleetError):
    """A token that cannot be created or found; the sentence says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """The stored record of a token. A limit of None means the configured limit."""

    id: str
    name: str
    scopes: tuple[str, ...]
    digest: str  #: of the secret
    created_ms: int = 0
    revoked_ms: int | None = None
    rate_per_s: float | None = None
    body_bytes: int | None = None

    @property
    def sent_by(self) -> str:
        """The sender of every event that comes with this token."""
        return f"token:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a stored token."""
        stored: dict[str, Any] = json.loads(text)
        return cls(**{**stored, "scopes": tuple(stored["scopes"])})


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights by the scopes of a token. Each `need_...` raises Forbidden naming the scope."""

    scopes: frozenset[str]

    @property
    def admin(self) -> bool:
        """True when everything is allowed."""
        return "admin" in self.scopes

    def sends(self, agent: str) -> bool:
        """True when it may send events to this agent."""
        return self._has("send", agent)

    def reads(self, agent: str) -> bool:
        """True when it may see this agent's dispatches and bus entries."""
        return self._has("read", agent)

    @property
    def reads_all(self) -> bool:
        """True when it may see every agent, and records of no agent."""
        return self.reads(EVERYONE)

    @property
    def operates(self) -> bool:
        """True when it may cancel, retry, approve and reject."""
        return self.admin or "operate" in self.scopes

    def readable(self, agents: Iterable[str]) -> frozenset[str]:
        """The members of `agents` that it may see."""
        return frozenset(filter(self.reads, agents))

    def need_send(self, agent: str) -> None:
        """Require the right to send to this agent."""
        if not self.sends(agent):
            raise _lacks(f"send:{agent}")

    def need_read(self, agent: str) -> None:
        """Require the right to see this agent; `*` stands for records of no agent."""
        if not self.reads(agent):
            raise _lacks(f"read:{agent}")

    def uses(self, tools: str) -> bool:
        """True when it may call the tools of this set."""
        return self._has("tools", tools)

    def need_tools(self, tools: str) -> None:
        """Require the right to call the tools of this set."""
        if not self.uses(tools):
            raise _lacks(f"tools:{tools}")

    def need_operate(self) -> None:
        """Require the right to operate."""
        if not self.operates:
            raise _lacks("operate")

    def need_admin(self) -> None:
        """Require the right to everything."""
        if not self.admin:
            raise _lacks("admin")

    def _has(self, verb: str, name: str) -> bool:
        scopes = self.scopes
        return f"{verb}:{EVERYONE}" in scopes or f"{verb}:{name}" in scopes or "admin" in scopes


#: The rights of everybody where no token is needed.
ANYTHING = Rights(frozenset({"admin"}))


def _lacks(scope: str) -> Forbidden:
    shown = scope[: NAME_CHARS_MAX + 8].encode("ascii", "backslashreplace").decode()
    return Forbidden(f"Your token does not have the scope {shown}; use one that has it.")


def checked_scopes(
    scopes: Sequence[str], agents: Iterable[str], tools: Iterable[str] = ()
) -> tuple[str, ...]:
    """The scopes without duplicates. Raises TokenError for an unknown scope."""
    known = {EVERYONE, *agents}
    named = {"send": known, "read": known, "tools": {EVERYONE, *tools}}
    for scope in scopes:
        verb, mark, name = scope.partition(":")
        if scope in _PLAIN_SCOPES or (mark and name in named.get(verb, ())):
            continue
        raise TokenError(
            f"{scope[:80]!r} is not a scope: write send:AGENT, read:AGENT ('*' is every agent; "
            f"there are {_listed(known)}), tools:SET ('*' is every set; there are "
            f"{_listed(named['tools'])}), operate or admin."
        )
    if not scopes:
        raise TokenError("A token without a scope opens nothing: give it one, such as send:archie.")
    return tuple(dict.fromkeys(scopes))


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names - {EVERYONE})[:20]) or "none"


def create(
    store: Store,
    name: str,
    scopes: Sequence[str],
    *,
    rate_per_s: float | None = None,
    body_bytes: int | None = None,
) -> tuple[Token, str]:
    """Create a token; return it with its text, which is not stored. Raises BrokerUnavailable.

    The scopes must come from `checked_scopes`. The name is for people and need not be unique.
    """
    if not name.strip() or not name.isprintable() or len(name) > NAME_CHARS_MAX:
        raise TokenError(f"A name is 1 to {NAME_CHARS_MAX} printable characters.")
    secret = secrets.token_urlsafe(32)
    token = Token(
        id=secrets.token_hex(6),
        name=name,
        scopes=tuple(scopes),
        digest=_digest(secret),
        rate_per_s=rate_per_s,
        body_bytes=body_bytes,
    )
    call = TokenCall(verb="create", token_id=token.id, record=json.dumps(asdict(token)))
    stored = Token.parse(str(store.run(call)))
    return stored, f"fleet_{token.id}_{secret}"


def revoke(store: Store, which: str) -> list[Token]:
    """Revoke the token of this id, or all tokens of this name; return those revoked now.

    The beginning of an id, of 6 characters or more, stands for it. Raises TokenError when there is
    none, or several begin so, and BrokerUnavailable.
    """
    tokens = read_all(store).values()
    found = [token for token in tokens if which in (token.id, token.name)]
    if not found and len(which) >= ID_PREFIX_CHARS_MIN:
        found = [token for token in tokens if token.id.startswith(which)]
        if len(found) > 1:
            several = ", ".join(f"{token.id} ({token.name})" for token in found[:10])
            raise TokenError(f"{which!r} is the beginning of several ids: {several}.")
    if not found:
        raise TokenError(f"There is no token {which[:64]!r}; `fleet token list` shows them.")
    return [t for t in found if store.run(TokenCall(verb="revoke", token_id=t.id))]


def read_all(store: Store) -> dict[str, Token]:
    """Every token, revoked tokens included, by id. Raises BrokerUnavailable."""
    with reachable():
        stored: Any = store.client.hgetall(keys.TOKENS)
    return {token_id: Token.parse(text) for token_id, text in stored.items()}


def senders(store: Store) -> tuple[str, ...]:
    """Every possible sender of an event. Raises BrokerUnavailable."""
    of_tokens = (token.sent_by for token in read_all(store).values())
    return (SENT_LOCALLY, SENT_BY_GATEWAY, SENT_BY_FLEET, *of_tokens)


def last_change(store: Store) -> str:
    """The id of the newest change of any token; '' before the first. Raises BrokerUnavailable."""
    with reachable():
        newest: Any = store.client.xrevrange(keys.ACCESS_NEWS, count=1)
    return str(newest[0][0]) if newest else ""


def shown(token: Token) -> dict[str, Any]:
    """A token as people see it: without the digest."""
    stored = asdict(token)
    del stored["digest"]
    return {**stored, "scopes": list(token.scopes)}


def match(text: str, tokens: Mapping[str, Token]) -> Token | None:
    """The token of this text; None when unknown or revoked. Constant time for each length."""
    token = _known(text, tokens)
    return token if token and token.revoked_ms is None else None


def was_revoked(text: str, tokens: Mapping[str, Token]) -> bool:
    """True for the text of a revoked token, secret and all."""
    token = _known(text, tokens)
    return token is not None and token.revoked_ms is not None


def _known(text: str, tokens: Mapping[str, Token]) -> Token | None:
    found = _TEXT.fullmatch(text)
    token = tokens.get(found[1]) if found else None
    digest = token.digest if token else "0" * 64
    same = hmac.compare_digest(_digest(found[2] if found else ""), digest)
    return token if token and same else None


def issue_ticket(store: Store, token_id: str) -> str:
    """Issue a ticket for this token; '' means a caller without one. Raises BrokerUnavailable."""
    ticket = secrets.token_urlsafe(24)
    digest, ttl_ms = _digest(ticket), TICKET_S * 1000
    store.run(TicketCall(verb="issue", digest=digest, token_id=token_id, ttl_ms=ttl_ms))
    return ticket


def use_ticket(store: Store, ticket: str) -> str | None:
    """Redeem a ticket for its token's id; None when it is used, expired or unknown.

    Raises BrokerUnavailable.
    """
    return store.run(TicketCall(verb="use", digest=_digest(ticket)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
