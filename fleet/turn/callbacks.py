"""Answers that a service gives later, by a call of its own to the fleet's API.

The runner `http` asks for one (`look`) before it posts an event, so an answer that comes before the
post has ended finds its place. It is kept with the dispatch, not with a process: who posted may
have died when it comes, and the next attempt only waits, or finds it.

A callback is signed with the agent's secret, after Standard Webhooks, under an id of its own: so
neither another dispatch's callback nor the fleet's own post, sent back, passes for one.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

from fleet.config.settings import Settings
from fleet.errors import Fenced
from fleet.formats import webhook_signature
from fleet.formats.webhook_signature import BadSignature
from fleet.ledger import Claim
from fleet.ledger.operations import NotPossible, Unknown
from fleet.store import Store, keys
from fleet.store.connection import reachable
from fleet.store.retry import retry_while_away
from fleet.system.api_address import read_address
from fleet.turn.turn import Cancelled

#: One look waits so long; well below the time after which a hung store counts as down.
BLOCK_S = 1.0
#: Between looks while the store is away.
_RETRY_DELAY_S = 0.5


@dataclass(frozen=True, slots=True)
class Called:
    """What a service called back, as it sent it."""

    media_type: str
    body: str


def address(settings: Settings, dispatch_id: str) -> str | None:
    """Where a service answers; None where no address of an API is known on this machine."""
    api = settings.api
    base = api.public_url or read_address(settings.data_dir)
    if base is None and api.port:
        host = f"[{api.host}]" if ":" in api.host else api.host
        base = f"http://{host}:{api.port}"
    return base and f"{base}/callbacks/{dispatch_id}"


def message_id(dispatch_id: str) -> str:
    """The `webhook-id` under which the answer to a dispatch is signed."""
    return f"callback-{dispatch_id}"


def get(store: Store, claim: Claim, round_: int, *, anew: bool = False) -> Called | None:
    """Ask for the answer, or look whether it has come; None when not yet.

    `round_` counts how often the event is posted; `anew` says that the round before ended with a
    failure, which is no answer to this one. Raises Cancelled, Fenced and BrokerUnavailable.
    """
    answer = store.run(
        "await_callback", claim.dispatch_id, claim.fence, claim.attempt, round_, int(anew)
    )
    if answer[0] == "fenced":
        raise Fenced(
            f"Attempt {claim.attempt} of {claim.dispatch_id} is no longer the current one."
        )
    if answer[0] == "cancel":
        raise Cancelled(answer[1])
    return Called(*answer[1:]) if answer[0] == "answered" else None


def wait(store: Store, claim: Claim, round_: int, until: float) -> Called | None:
    """The answer when it comes; None when it has not until then, in time.monotonic() seconds.

    Waits out a store that is away. Raises as `look`, but BrokerUnavailable only at the end.
    """

    def answer() -> Called | None:
        while True:
            found = get(store, claim, round_)
            left_s = until - time.monotonic()
            if found is not None or left_s <= 0:
                return found
            with reachable():
                # Rounded up: 0 would be for ever.
                most_s = max(0.01, min(BLOCK_S, left_s))
                store.client.blpop([keys.called(claim.dispatch_id)], timeout=most_s)

    return retry_while_away(answer, until - time.monotonic(), _RETRY_DELAY_S)


def agent_of(store: Store, dispatch_id: str) -> str | None:
    """Whose dispatch it is. Raises BrokerUnavailable."""
    with reachable():
        found = store.client.hget(keys.dispatch(dispatch_id), "agent")
    return None if found is None else str(found)


def check(secret: str, dispatch_id: str, headers: Mapping[str, str], body: bytes) -> None:
    """Raises BadSignature when these are not from who holds the secret, for this dispatch."""
    if webhook_signature.verify(secret, headers, body) != message_id(dispatch_id):
        raise BadSignature("webhook-id must be `callback-` and the dispatch's id.")


def store(store: Store, dispatch_id: str, media_type: str, body: str) -> bool:
    """Keep an answer for its turn; False when the same one is kept already.

    Raises Unknown; NotPossible when the dispatch has ended, has another answer or has asked for
    none; BrokerUnavailable.
    """
    digest = hashlib.sha256(f"{media_type}\n{body}".encode()).hexdigest()
    answer = str(store.run("callback", dispatch_id, media_type, body, digest))
    match answer:
        case "kept" | "duplicate":
            return answer == "kept"
        case "unknown":
            raise Unknown("There is no dispatch of this id.")
        case "answered":
            raise NotPossible("The dispatch has its answer already: the first one counts.")
        case "unasked":
            raise NotPossible("The dispatch has not asked for a callback.")
        case state:
            raise NotPossible(f"The dispatch is already {state}: it takes no answer any more.")
