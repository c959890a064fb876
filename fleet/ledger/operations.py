"""Operations of a person on dispatches and agents, for the command line and the HTTP API.

Each is one script or a bounded row of them; repeating one is harmless.
"""

import uuid
from collections import Counter
from typing import Literal

from fleet.config.settings import Settings
from fleet.errors import NotPossible as NotPossible
from fleet.errors import Unknown as Unknown
from fleet.ledger import removed, views
from fleet.ledger.maintenance import sweep, sweep_call
from fleet.ledger.states import WAITING, State
from fleet.ledger.valkey import ValkeyLedger
from fleet.store import Store, keys
from fleet.store.calls import AgentCall, CancelCall, DecideCall, ReassignCall, ReplayCall
from fleet.store.connection import reachable
from fleet.system.agent_lock import record_paused
from routing import Verdict

#: Of the name of a person who decides.
BY_CHARS_MAX = 64


def is_name(by: str) -> bool:
    """True for a name of a person who decides: one short printable line."""
    return bool(by.strip()) and by.isprintable() and len(by) <= BY_CHARS_MAX


class UnknownAgent(Unknown):
    """There is no such agent. The sentence guesses at no other name, as of `UnknownTarget`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no agent {name[:64]!r} in this fleet.")
        self.target = name


def known_agents(settings: Settings, name: str | None) -> list[str]:
    """The named agent, or all of them. Raises Unknown."""
    if name is None:
        return list(settings.agents)
    if name not in settings.agents:
        raise UnknownAgent(name)
    return [name]


def agents_with_work(store: Store, settings: Settings, name: str | None) -> list[str]:
    """The named agent, or all of them; removed ones too. Raises Unknown.

    Of all, those removed ones that have work; by name, any that ever had a dispatch.
    """
    if name is None:
        return [*settings.agents, *removed.work(store, settings.agents)]
    if name in settings.agents or name in settings.people() or name in removed.names(store):
        return [name]
    return known_agents(settings, name)


def cancel(
    ledger: ValkeyLedger, settings: Settings, dispatch_id: str, reason: str, *, now: bool = False
) -> State:
    """Cancel a dispatch; the state it is in now: `active` means it stops at its next step.

    `now` ends a running turn at once, whatever it is in the middle of.

    Raises Unknown, and NotPossible when it has already ended otherwise.
    """
    call = _cancel_call(settings, dispatch_id, reason, now=now)
    state = _state(ledger.store.run(call), dispatch_id)
    if state.terminal and state is not State.CANCELLED:
        raise NotPossible(f"{dispatch_id} is already {state}: there is nothing to cancel.")
    return state


def replay(ledger: ValkeyLedger, settings: Settings, dispatch_id: str) -> State:
    """Try a dispatch again, in its old place: a retrying one now, a dead one as a new generation.

    A queued one stays as it is. Raises Unknown, and NotPossible when it is in another state or its
    event is no longer kept.
    """
    with reachable():
        found = ledger.store.client.hmget(keys.dispatch(dispatch_id), ["agent", "state"])
    agent, state_now = (str(value or "") for value in found)
    if state_now == State.PARKED:
        raise NotPossible(
            f"{dispatch_id} waits for a person: decide it with `fleet approve` or `fleet reject`."
        )
    if state_now == State.DEAD and agent not in settings.agents:
        raise NotPossible(
            f"{dispatch_id} was for {agent}, which is not an agent of this fleet now: "
            f"`fleet queue move {agent} NEW` gives what it had to another."
        )
    deadline_s = settings.agents[agent].retry.deadline_s if agent in settings.agents else 0.0
    call = ReplayCall(dispatch_id=dispatch_id, deadline_ms=int(deadline_s * 1000))
    answer = ledger.store.run(call)
    if answer == "gone":
        raise NotPossible(f"The event of {dispatch_id} is no longer kept.")
    if answer == "passed":
        raise NotPossible(f"The chain of {dispatch_id} went on, or ended, without it.")
    state = _state(answer, dispatch_id)
    if state is State.ACTIVE or state is State.ANNOUNCING:
        raise NotPossible(f"{dispatch_id} is {state}: it runs already, or its outcome is told now.")
    if state is not State.QUEUED:
        raise NotPossible(
            f"{dispatch_id} is {state}: only a dead one, or a retrying one, can be tried again; "
            f"`fleet queue resend {dispatch_id}` sends its event again as a new one."
        )
    return state


def decide(
    ledger: ValkeyLedger,
    settings: Settings,
    dispatch_id: str,
    verdict: Literal[Verdict.APPROVE, Verdict.REJECT],
    *,
    by: str,
    reason: str = "",
) -> State:
    """Approve or reject a parked dispatch in the name of `by`; its chain goes on or ends.

    Raises Unknown, and NotPossible when it was decided before, has expired, or was not parked.
    """
    call = DecideCall(
        dispatch_id=dispatch_id,
        verdict="approve" if verdict is Verdict.APPROVE else "reject",
        by=by,
        reason=reason,
        call=uuid.uuid4().hex,
        keep_ended_ms=int(settings.retention.completed_s * 1000),
    )
    answer, *rest = ledger.store.run(call)
    if answer == "refused":
        raise NotPossible(_undecidable(dispatch_id, *rest))
    ledger.notify_stage(rest[1:])
    return _state(answer if answer == "unknown" else rest[0], dispatch_id)


def _undecidable(dispatch_id: str, state: str, verdict: str, decided_by: str, ended_ms: str) -> str:
    when = f" at {views.rfc3339(float(ended_ms))}" if ended_ms else ""
    if verdict:
        word = "approved" if verdict == Verdict.APPROVE else "rejected"
        return f"{dispatch_id} was {word} by {decided_by}{when}: it is decided only once."
    if state == State.EXPIRED:
        return f"{dispatch_id} expired{when}, before anybody decided: send the event again."
    return f"{dispatch_id} is {state}, not parked: there is nothing to decide."


def pause(ledger: ValkeyLedger, agent: str) -> bool:
    """Let an agent finish its running turn and start no other; False when it was paused before."""
    if ledger.settings.runs_offline:
        record_paused(ledger.settings.data_dir, agent, True)
    return bool(ledger.store.run(AgentCall(agent=agent, verb="pause")))


def resume(ledger: ValkeyLedger, agent: str) -> bool:
    """Let a paused agent go on; False when it was not paused."""
    resumed = bool(ledger.store.run(AgentCall(agent=agent, verb="resume")))
    if ledger.settings.runs_offline:
        record_paused(ledger.settings.data_dir, agent, False)
    return resumed


def drain(ledger: ValkeyLedger, settings: Settings, agent: str, reason: str) -> int:
    """Cancel everything that waits for an agent now; how many. A running turn is left alone."""
    states = sorted(WAITING)
    cancelled, cursor = 0, None
    while True:
        page = views.find(
            ledger.store, agent=agent, states=states, limit=views.LIST_MAX, cursor=cursor
        )
        calls = [_cancel_call(settings, row["dispatch_id"], reason) for row in page.dispatches]
        answers = ledger.store.run_many(CancelCall, calls) if calls else []
        cancelled += answers.count(State.CANCELLED)
        cursor = page.cursor
        if cursor is None:
            return cancelled


def reassign(ledger: ValkeyLedger, settings: Settings, old: str, new: str) -> Counter[str]:
    """Give what waits for `old` to the agent `new`, in its old place; how many in each state.

    Of an agent that was removed from the configuration the dead letters too. Raises Unknown.
    """
    agents_with_work(ledger.store, settings, old)
    known_agents(settings, new)
    if old == new:
        return Counter()
    states = [State.QUEUED, State.RETRYING, *([] if old in settings.agents else [State.DEAD])]
    moved: Counter[str] = Counter()
    cursor = None
    while True:
        page = views.find(
            ledger.store, agent=old, states=states, limit=views.LIST_MAX, cursor=cursor
        )
        calls = [
            ReassignCall(dispatch_id=row["dispatch_id"], agent=old, to=new)
            for row in page.dispatches
        ]
        moved.update(ledger.store.run_many(ReassignCall, calls) if calls else [])
        cursor = page.cursor
        if cursor is None:
            del moved[""]
            return moved


def purge(ledger: ValkeyLedger, settings: Settings) -> int:
    """Forget every dead letter there is now; how many. Each is announced as dropped.

    A dead letter with an open receiver stays.
    """
    call = sweep_call(settings)
    call.keep_dead_ms = 0
    return sweep(ledger.store, call)[1]


def _cancel_call(
    settings: Settings, dispatch_id: str, reason: str, *, now: bool = False
) -> CancelCall:
    return CancelCall(
        dispatch_id=dispatch_id,
        reason=reason,
        keep_ended_ms=int(settings.retention.completed_s * 1000),
        now=1 if now else 0,
    )


def _state(answer: str, dispatch_id: str) -> State:
    if answer == "unknown":
        raise Unknown(f"There is no dispatch {dispatch_id[:64]!r}; see `fleet queue list`.")
    return State(answer)
