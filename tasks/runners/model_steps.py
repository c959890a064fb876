"""Calls of an agent's model as journalled steps: each answer that is paid for is one.

A model's answer may be no answer: a refusal, silence, a call of a tool that was cut. It is
journalled like any other, and the next model gets a step of its own. So a turn that was killed
meanwhile goes on with the next model, and pays for nothing twice. All models together are a round.
When one fails, a later attempt asks in a new round, and the steps of the earlier one are known by
their occurrence.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any

from fleet import runtime
from fleet.errors import BrokerUnavailable
from fleet.ledger import Failure, FailureStage, bus
from fleet.turn.budget import DAY_S, used_up
from fleet.turn.providers import Providers
from fleet.turn.turn import Turn, TurnFailed
from tasks.model import completion, prices
from tasks.model.reply import AttemptVerdict, CallFailure, Demands, ModelError, Reply

logger = logging.getLogger(__name__)

#: Spending is unknown while the store is away; that takes seconds or minutes.
BUDGET_RETRY_DELAY_S = 30.0

Messages = list[dict[str, Any]]
Tools = list[dict[str, Any]]


def ask(turn: Turn, messages: Messages, tools: Tools) -> Mapping[str, Any]:
    """The answer to the messages, of the first of the agent's models that gives one.

    Raises TurnFailed with stage `llm` or `budget`.
    """
    while True:
        failed: list[Mapping[str, Any]] = []
        try:
            return _ask_each(turn, messages, tools, failed)
        except ModelError as error:
            # A round that an earlier attempt began, and so the one that failed it, is not the last:
            # this attempt has a round of its own.
            if _is_over(turn, failed):
                continue
            raise TurnFailed(
                Failure(
                    stage=FailureStage.LLM,
                    reason=str(error),
                    retryable=error.retryable,
                    retry_after_s=error.retry_after_s,
                    kind=error.kind,
                    message=error.said,
                    defer=error.kind == completion.PROVIDERS_OPEN,
                )
            ) from error


def _ask_each(
    turn: Turn, messages: Messages, tools: Tools, failed: list[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """The first answer; replies that are none are added to `failed`. Raises ModelError."""
    request: dict[str, Any] = {"model": turn.agent.model, "messages": messages}
    if tools:
        request["tools"] = tools
    first = 1
    while first <= _last_tier(turn):
        if first > 1:
            turn.say_again()
            request["tier"] = first
        call = partial(_call_model, turn, messages, tools, first, list(map(_failure, failed)))
        reply: Mapping[str, Any] = turn.step("llm", request, call)
        turn.facts.update(model=reply["model"], tier=reply["tier"])
        if not reply.get("failure"):
            return reply
        failed.append(reply)
        first = reply["tier"] + 1
    raise completion.no_answer(list(map(_failure, failed)))


def _last_tier(turn: Turn) -> int:
    # Also of an agent whose runner only uses this one.
    return 1 + len(turn.agent.fallbacks)


def _is_over(turn: Turn, failed: Sequence[Mapping[str, Any]]) -> bool:
    """True where an earlier attempt ended with these failures, so that this one may ask again."""
    before = [reply for reply in failed if reply["failure"]["attempt"] != turn.claim.attempt]
    last = _last_tier(turn)
    return any(reply["failure"]["retryable"] or reply["tier"] == last for reply in before)


def _failure(reply: Mapping[str, Any]) -> CallFailure:
    told = reply["failure"]
    verdict = AttemptVerdict.RETRY if told["retryable"] else AttemptVerdict.NEXT_TIER
    return CallFailure(told["kind"], verdict, told["reason"])


def _check_budget(turn: Turn) -> None:
    """Raises TurnFailed with stage `budget` when the agent has spent its budget of today."""
    try:
        found = used_up(runtime.current().store, turn.claim.agent, turn.agent.budget)
    except BrokerUnavailable as error:
        raise _over_budget("the budget cannot be read", BUDGET_RETRY_DELAY_S) from error
    if found is not None:
        standing, wait_s = found
        raise _over_budget(f"the budget is used up: {standing.of}", wait_s, defer=True)


def _over_budget(reason: str, wait_s: float, *, defer: bool = False) -> TurnFailed:
    return TurnFailed(
        Failure(
            stage=FailureStage.BUDGET,
            reason=reason,
            retryable=True,
            retry_after_s=wait_s,
            kind="BudgetUsedUp",
            defer=defer,
        )
    )


def _call_model(
    turn: Turn, messages: Messages, tools: Tools, first: int, earlier: Sequence[CallFailure]
) -> dict[str, Any]:
    """A reply as the journal keeps it, of a model from `first` on. Raises as `complete`."""
    _check_budget(turn)
    reply = completion.complete(
        model=str(turn.agent.model),
        fallbacks=turn.agent.fallbacks,
        messages=messages,
        timeout_s=turn.agent.call_timeout_s,
        deadline=turn.deadline,
        tools=tools,
        params=turn.agent.params,
        on_token=turn.say if turn.agent.stream else None,
        on_restart=turn.say_again,
        gate=Providers(
            lambda: runtime.current().store, runtime.current().settings.breaker, turn.claim.agent
        ),
        # A verdict stands in the first line or the last, and a stage's answer is what others get.
        demands=Demands(
            whole=turn.chain_position is not None,
            allow_empty=turn.agent.allow_empty,
            trust_done=turn.agent.trust_done,
        ),
        first=first,
        earlier=earlier,
    )
    if reply.usd is None and turn.agent.budget.usd_per_day is not None:
        _alert_unpriced(turn.claim.agent, reply.model)
    return {
        **_told(turn, reply),
        "text": reply.text,
        "model": reply.model,
        "tier": reply.tier,
        "tokens_in": reply.tokens_in,
        "tokens_out": reply.tokens_out,
        "usd": reply.usd,
        "finish_reason": reply.finish_reason,
    }


def _told(turn: Turn, reply: Reply) -> dict[str, Any]:
    """The parts of a reply that not every one has."""
    if failure := reply.failure:
        about = {
            "kind": failure.kind,
            "reason": failure.sentence,
            "retryable": failure.verdict is AttemptVerdict.RETRY,
            "attempt": turn.claim.attempt,
        }
        return {"failure": about}
    calls = {"tool_calls": reply.tool_calls, "message": reply.message} if reply.tool_calls else {}
    return {**calls, "cut": reply.cut} if reply.cut else calls


@cache
def _alert_unpriced(agent: str, model: str) -> None:
    """Alert once that a model's calls do not count against a budget in dollars."""
    reason = prices.fault(agent, model)
    logger.warning(reason)
    # The answer is paid for, and must reach the journal even without the alert.
    with suppress(BrokerUnavailable):
        bus.alert(runtime.current().store, "unpriced_model", reason, once_in_s=DAY_S)
