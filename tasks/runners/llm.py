"""Runner `llm`: an agent's model through LiteLLM, with its instructions, fallbacks and tools.

The model is called, the tools that it requests are run, and it is called again with their results,
until it answers. Each call of the model and each call of a tool is a journalled step.
"""

import logging
from contextlib import suppress
from functools import cache
from typing import Any

from fleet import runtime
from fleet.errors import BrokerUnavailable
from fleet.ledger import Failure, FailureStage, SessionMessage, bus
from fleet.turn.budget import DAY_S, used_up
from fleet.turn.providers import Providers
from fleet.turn.turn import Turn, TurnFailed
from tasks.model import completion, prices
from tasks.tools import Toolset, declined, numbered, portable

logger = logging.getLogger(__name__)

#: Spending is unknown while the store is away; that takes seconds or minutes.
BUDGET_RETRY_DELAY_S = 30.0


class LlmRunner:
    """Calls the agent's model, or a fallback of it, as often as it requests tools."""

    def run(self, turn: Turn) -> str:
        """The model's answer. Raises TurnFailed with stage `llm`, `budget` or `tool`."""
        messages: list[dict[str, Any]] = []
        if turn.agent.instructions:
            messages.append({"role": "system", "content": turn.agent.instructions})
        messages += [_as_message(message, turn.claim.agent) for message in turn.history]
        messages.append({"role": "user", "content": turn.prompt})
        tools = Toolset.of(turn)
        # One call more than rounds, to answer with the last round's results, and one for a model
        # that has to be told that the round was the last.
        for number in range(turn.agent.max_tool_rounds + 2):
            reply = _step(turn, messages, tools.specs)
            requested = numbered(reply.get("tool_calls", ()), turn.steps)
            if not requested or not tools.specs:
                return str(reply["text"])
            messages.append(portable({**reply["message"], "tool_calls": requested}))
            if number < turn.agent.max_tool_rounds:
                messages += tools.answer(requested)
            else:
                messages += declined(requested, "this turn may use no more tools: answer now")
        raise TurnFailed(
            Failure(
                stage=FailureStage.TOOL,
                reason=f"the model goes on calling tools after {turn.agent.max_tool_rounds} "
                "rounds, max_tool_rounds",
                retryable=False,
                kind="ToolRounds",
            )
        )


def _step(turn: Turn, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Any:
    """One call of the model, journalled under its request."""
    request = {"model": turn.agent.model, "messages": messages}
    if tools:
        request["tools"] = tools
    try:
        reply = turn.step("llm", request, lambda: _call_model(turn, messages, tools))
    except completion.ModelError as error:
        failure = Failure(
            stage=FailureStage.LLM,
            reason=str(error),
            retryable=error.retryable,
            retry_after_s=error.retry_after_s,
            kind=error.kind,
            defer=error.kind == completion.PROVIDERS_OPEN,
        )
        raise TurnFailed(failure) from error
    turn.facts.update(model=reply["model"], tier=reply["tier"])
    return reply


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


def _as_message(message: SessionMessage, agent: str) -> dict[str, Any]:
    """A message of the history: another agent's answer begins with that agent's name."""
    other = message.role == "assistant" and message.agent != agent
    text = f"{message.agent}: {message.text}" if other else message.text
    return {"role": message.role, "content": text}


def _call_model(
    turn: Turn, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> dict[str, Any]:
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
    )
    if reply.usd is None and turn.agent.budget.usd_per_day is not None:
        _alert_unpriced(turn.claim.agent, reply.model)
    calls = {"tool_calls": reply.tool_calls, "message": reply.message} if reply.tool_calls else {}
    return {
        **calls,
        "text": reply.text,
        "model": reply.model,
        "tier": reply.tier,
        "tokens_in": reply.tokens_in,
        "tokens_out": reply.tokens_out,
        "usd": reply.usd,
        "finish_reason": reply.finish_reason,
    }


@cache
def _alert_unpriced(agent: str, model: str) -> None:
    """Alert once that a model's calls do not count against a budget in dollars."""
    reason = prices.fault(agent, model)
    logger.warning(reason)
    # The answer is paid for, and must reach the journal even without the alert.
    with suppress(BrokerUnavailable):
        bus.alert(runtime.current().store, "unpriced_model", reason, once_in_s=DAY_S)
