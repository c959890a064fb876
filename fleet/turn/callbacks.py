"""Answers that a service gives later, by a call of its own to the fleet's API.

The runner `http` requests an answer (`get`) before it posts an event, so an answer that comes
before the post has ended is accepted. The answer is stored with the dispatch, not with a process:
when the posting process has died, the next attempt waits for the answer, or finds it.

A callback is signed with the agent's secret, after Standard Webhooks, under an id of its own. So
neither another dispatch's callback nor the fleet's own post, sent back, passes for a callback.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

from fleet.config.settings import Settings
from fleet.formats import webhook_signature
from fleet.formats.webhook_signature import BadSignature
from fleet.ledger import Claim
from fleet.ledger.operations import NotPossible, Unknown
from fleet.store import Store, keys
from fleet.store.calls import AwaitCallbackCall, CallbackCall
from fleet.store.connection import reachable, retry_while_away
from fleet.system.api_address import read_address
from fleet.turn.turn import Cancelled

#: Wait of one poll; well below the time after which a hung store counts as down.
BLOCK_S = 1.0
#: Between polls while the store is away.
_RETRY_DELAY_S = 0.5


@dataclass(frozen=True, slots=True)
class Callback:
    """An answer of a service, as the service sent it."""

    media_type: str
    body: str


def address(settings: Settings, dispatch_id: str) -> str | None:
    """The URL for a service's answer; None where this machine knows no address of an API."""
    api = settings.api
    base = api.public_url or read_address(settings.data_dir)
    if base is None and api.port:
        host = f"[{api.host}]" if ":" in api.host else api.host
        base = f"http://{host}:{api.port}"
    return base and f"{base}/callbacks/{dispatch_id}"


def message_id(dispatch_id: str) -> str:
    """The `webhook-id` under which the answer to a dispatch is signed."""
    return f"callback-{dispatch_id}"


def get(store: Store, claim: Claim, round_: int, *, anew: bool = False) -> Callback | None:
    """Request the answer, or return it; None when it has not come yet.

    `round_` counts the posts of the event. `anew` says that the round before ended with a failure,
    which must not answer this round. Raises Cancelled, Fenced and BrokerUnavailable.
    """
    call = AwaitCallbackCall(
        dispatch_id=claim.dispatch_id,
        fence=claim.fence,
        lease=claim.lease,
        attempt=claim.attempt,
        round=round_,
        anew=1 if anew else 0,
    )
    answer = store.run(call)
    if answer[0] == "fenced":
        raise claim.fenced()
    if answer[0] == "cancel":
        raise Cancelled(answer[1])
    return Callback(*answer[1:]) if answer[0] == "answered" else None


def wait(store: Store, claim: Claim, round_: int, until: float) -> Callback | None:
    """The answer when it comes; None when it has not come at `until`, in time.monotonic() seconds.

    Waits while the store is away. Raises as `get`, but BrokerUnavailable only at the end.
    """

    def answer() -> Callback | None:
        while True:
            found = get(store, claim, round_)
            left_s = until - time.monotonic()
            if found is not None or left_s <= 0:
                return found
            with reachable():
                # Not 0, which would wait for ever.
                most_s = max(0.01, min(BLOCK_S, left_s))
                store.client.blpop([keys.called(claim.dispatch_id)], timeout=most_s)

    return retry_while_away(answer, until - time.monotonic(), _RETRY_DELAY_S)


def agent_of(store: Store, dispatch_id: str) -> str | None:
    """The agent of a dispatch. Raises BrokerUnavailable."""
    with reachable():
        found = store.client.hget(keys.dispatch(dispatch_id), "agent")
    return None if found is None else str(found)


def check(secret: str, dispatch_id: str, headers: Mapping[str, str], body: bytes) -> None:
    """Raises BadSignature unless the secret's owner signed these for this dispatch."""
    if webhook_signature.verify(secret, headers, body) != message_id(dispatch_id):
        raise BadSignature("webhook-id must be `callback-` and the dispatch's id.")


def store(store: Store, dispatch_id: str, media_type: str, body: str) -> bool:
    """Store an answer for its turn; False when the same answer is stored already.

    Raises Unknown; NotPossible when the dispatch has ended, has another answer or has requested
    none; BrokerUnavailable.
    """
    digest = hashlib.sha256(f"{media_type}\n{body}".encode()).hexdigest()
    call = CallbackCall(dispatch_id=dispatch_id, media_type=media_type, body=body, digest=digest)
    answer = store.run(call)
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
