"""The calls of every script, declared with types. The meaning of each argument is in its legend."""

from typing import Any, Literal

from fleet.store.script import Record, ScriptCall

Flag = Literal[0, 1]


# Acceptance


class DispatchArgs(Record):
    """A dispatch of an event that is to be accepted; see `_accept.lua`."""

    id: str
    agent: str
    deadline_ms: int
    max_pending: int
    drop_keep_ms: int | Literal[""]
    on_busy: str
    deliver: str


class EventArgs(Record):
    """An event that is to be accepted; see `_accept.lua`."""

    digest: str
    event_id: str
    source: str
    sent_by: str
    content: str
    old_digest: str
    session: str
    priority: int
    payload: str
    route: str
    cancel_keep_ms: int | Literal[""]
    plan: str
    store_memory: float
    max_waiting: int
    sender_per_minute: int | Literal[""]
    resent_from: str
    dispatches: list[DispatchArgs]

    @property
    def is_plain(self) -> bool:
        """True for an event that needs nothing of `_accept_more.lua`."""
        return not self.plan and all(
            one.drop_keep_ms == "" and not (one.on_busy and self.session) for one in self.dispatches
        )


class AcceptCall(ScriptCall[list[list[str]]]):
    """Accept events."""

    events: list[EventArgs]


class AcceptPlainCall(ScriptCall[list[list[str]]]):
    """Accept events that are stored and queued, whatever else there is."""

    events: list[EventArgs]


class BackfillCall(ScriptCall[list[Any]]):
    """Accept an event that the spool accepted, with the runs of its dispatches."""

    reports: str
    event: EventArgs


# Turns


class ClaimCall(ScriptCall[list[Any]]):
    """Claim the agent's next runnable dispatch."""

    agent: str
    fence: int
    lease: str
    holder: str
    losses_max: int
    keep_dead_ms: int
    keep_ended_ms: int
    call: str
    history_max: int
    ageing_ms: int


class EndingArgs(Record):
    """The end of an attempt; see `_ending.lua`."""

    verdict: Literal["completed", "failed", "cancelled", "held"]
    fields: str
    answer: str
    stage: str
    reason: str
    failure: str
    retryable: Flag
    attempts_max: int
    min_age_ms: int
    backoff_ms: int
    jitter: str
    retry_after_ms: int
    keep_dead_ms: int
    keep_ended_ms: int
    user_message: str
    agent_message: str
    messages_max: int
    bytes_max: int
    history_keep_ms: int


class CommitCall(ScriptCall[list[str]]):
    """End an attempt."""

    dispatch_id: str
    agent: str
    fence: int
    lease: str
    attempt: int | Literal[""]
    ending: EndingArgs


class StepCall(ScriptCall[list[str]]):
    """Journal one finished step."""

    dispatch_id: str
    fence: int
    lease: str
    attempt: int
    step: str
    entry: str
    tokens_in: int
    tokens_out: int
    usd: str
    verification: str
    reason: str


class ChunkArgs(Record):
    """A chunk of live text; see `speak.lua`."""

    place: int
    before: int
    kind: str
    step: int
    offset: int
    text: str


class SpeakCall(ScriptCall[int]):
    """Publish chunks of a running turn's text."""

    dispatch_id: str
    fence: int
    lease: str
    attempt: int
    kept_max: int
    keep_ms: int
    chunks: list[ChunkArgs]


class AwaitCallbackCall(ScriptCall[list[str]]):
    """Request the answer that a service gives by a call of its own."""

    dispatch_id: str
    fence: int
    lease: str
    attempt: int
    round: int
    anew: Flag


class CallbackCall(ScriptCall[str]):
    """Store the answer that a service gives by a call of its own."""

    dispatch_id: str
    media_type: str
    body: str
    digest: str


# Operations


class AgentCall(ScriptCall[int]):
    """Pause or resume an agent."""

    agent: str
    verb: Literal["pause", "resume", "fund"]


class CancelCall(ScriptCall[str]):
    """Cancel a dispatch."""

    dispatch_id: str
    reason: str
    keep_ended_ms: int
    now: Flag


class ReplayCall(ScriptCall[str]):
    """Try a retrying dispatch, or a dead letter, again."""

    dispatch_id: str
    deadline_ms: int


class ReassignCall(ScriptCall[str]):
    """Give a dispatch to another agent."""

    dispatch_id: str
    agent: str
    to: str


class DecideCall(ScriptCall[list[str]]):
    """Approve or reject a parked dispatch."""

    dispatch_id: str
    verdict: Literal["approve", "reject"]
    by: str
    reason: str
    call: str
    keep_ended_ms: int


class AskCall(ScriptCall[int]):
    """Count one dispatch that a tool requests."""

    caller: str
    per_minute: int


# Deliveries


class DeliverClaimCall(ScriptCall[list[Any]]):
    """Claim one receiver of an outcome."""

    dispatch_id: str
    target: str
    call: str
    lease_ms: int
    keep_ended_ms: int


class DeliverEndCall(ScriptCall[list[Any]]):
    """Report the end of one delivery attempt."""

    dispatch_id: str
    target: str
    call: str
    result: Literal["ack", "unverified", "failed", "placed"]
    reason: str
    keep_ended_ms: int
    retry_after_ms: int
    placed: str


class DeliverDueCall(ScriptCall[list[Any]]):
    """Find the outcomes that are due."""

    limit: int
    again_ms: int
    queue_max: int
    keep_ended_ms: int
    target: str


class UpstreamCall(ScriptCall[int]):
    """Store the upstream client's cursor or mode."""

    verb: Literal["cursor", "mode"]
    digest: str
    fence: int
    value: str
    mode_ms: int


class ProviderCall(ScriptCall[int]):
    """Request a call of a model's provider, or report its end."""

    verb: Literal["ask", "tell"]
    agent: str
    model: str
    key: str
    call_ms: int = 0
    outcome: Literal["", "ok", "failed", "limited", "denied"] = ""
    reason: str = ""
    retry_after_ms: int = 0
    failures_max: int = 0
    window_ms: int = 0
    first_wait_ms: int = 0
    longest_wait_ms: int = 0


# Upkeep


class ReclaimCall(ScriptCall[list[Any]]):
    """Repair one agent, or the whole fleet."""

    agent: str
    keep_ended_ms: int
    limit: int
    untouched_ms: int
    removed_ms: int | Literal[""] = ""
    keep_dead_ms: int = 0
    losses_max: int = 0


class TickCall(ScriptCall[int]):
    """Begin a periodic job, or record that it ran."""

    job: str
    verb: Literal["begin", "end"]
    period_ms: int = 0


class SweepCall(ScriptCall[tuple[int, int, int, int]]):
    """Apply retention."""

    keep_ended_ms: int
    keep_dead_ms: int
    kept_max: int
    keep_bus_ms: int
    limit: int


class FindCall(ScriptCall[list[str]]):
    """Find dispatches in the index."""

    writes = False
    agent: str
    below: str
    found_max: int
    seen_max: int
    states: list[str]


class MetricsCall(ScriptCall[str]):
    """Read everything that a scrape shows."""

    writes = False
    agents: list[str]


class AlertCall(ScriptCall[str | None]):
    """Put an alert on the bus."""

    name: str
    reason: str
    state: Literal["", "open", "closed"] = ""
    once_ms: int = 0


class RefusedCall(ScriptCall[str]):
    """Put the refusal of an event on the bus."""

    carrier: str
    reason: str
    sender: str
    agent: str


class BreakerCall(ScriptCall[int]):
    """Write to the broker, and put the breaker's opening and closing on the bus."""

    opening: str
    host: str
    cause: str
    age_ms: int


class TokenCall(ScriptCall[str | None]):
    """Create or revoke an API token."""

    verb: Literal["create", "revoke"]
    token_id: str
    record: str = ""


class TicketCall(ScriptCall[str | None]):
    """Issue or use a ticket."""

    verb: Literal["issue", "use"]
    digest: str
    token_id: str = ""
    ttl_ms: int = 0
