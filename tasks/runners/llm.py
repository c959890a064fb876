"""Runner `llm`: an agent's model through LiteLLM, with its instructions, fallbacks and tools.

The model is asked, the tools that it calls are run, and it is asked again with their results, until
it answers. Each call of the model and each of a tool is a journalled step.
"""

import logging
from contextlib import suppress
from functools import cache
from typing import Any

from fleet import runtime
from fleet.errors import BrokerUnavailable
from fleet.ledger import Failure, FailureStage, Said, bus
from fleet.turn.budget import DAY_S, used_up
from fleet.turn.providers import Providers
from fleet.turn.turn import Turn, TurnFailed
from tasks.model import completion
from tasks.runners.chain_prompt import with_chain_prompt
from tasks.tools import Toolset, declined, numbered, portable

logger = logging.getLogger(__name__)

#: What is spent cannot be known while the store is away; that takes seconds or minutes.
BUDGET_RETRY_DELAY_S = 30.0


class LlmRunner:
    """Asks the agent's model, or a fallback of it, as often as it calls tools."""

    def run(self, turn: Turn) -> str:
        """The model's answer. Raises TurnFailed with stage `llm`, `budget` or `tool`."""
        messages: list[dict[str, Any]] = []
        if turn.agent.instructions:
            messages.append({"role": "system", "content": turn.agent.instructions})
        messages += [_as_message(said, turn.claim.agent) for said in turn.history]
        messages.append(
            {"role": "user", "content": with_chain_prompt(turn.text, turn.chain_position)}
        )
        tools = Toolset.of(turn)
        # One call more than rounds, to answer with what the last of them brought, and one for a
        # model that has to be told that it was the last.
        for number in range(turn.agent.max_tool_rounds + 2):
            reply = _step(turn, messages, tools.specs)
            asked = numbered(reply.get("tool_calls", ()), turn.steps)
            if not asked or not tools.specs:
                return str(reply["text"])
            messages.append(portable({**reply["message"], "tool_calls": asked}))
            if number < turn.agent.max_tool_rounds:
                messages += tools.answer(asked)
            else:
                messages += declined(asked, "this turn may use no more tools: answer now")
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
    """One call of the model. What it is asked is what the journal knows the step by."""
    request = {"model": turn.agent.model, "messages": messages}
    if tools:
        request["tools"] = tools
    try:
        reply = turn.step("llm", request, lambda: _ask(turn, messages, tools))
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


def _afford(turn: Turn) -> None:
    """Raises TurnFailed with stage `budget` when the agent has spent what it may today."""
    try:
        found = used_up(runtime.store(), turn.claim.agent, turn.agent.budget)
    except BrokerUnavailable as error:
        raise _stopped("the budget cannot be looked up", BUDGET_RETRY_DELAY_S) from error
    if found is not None:
        standing, wait_s = found
        raise _stopped(f"the budget is used up: {standing.of}", wait_s)


def _stopped(reason: str, wait_s: float) -> TurnFailed:
    return TurnFailed(
        Failure(
            stage=FailureStage.BUDGET,
            reason=reason,
            retryable=True,
            retry_after_s=wait_s,
            kind="BudgetUsedUp",
        )
    )


def _as_message(said: Said, agent: str) -> dict[str, Any]:
    """A message of the history: another agent's answer says whose it is."""
    other = said.role == "assistant" and said.agent != agent
    return {"role": said.role, "content": f"{said.agent}: {said.text}" if other else said.text}


def _ask(turn: Turn, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> dict[str, Any]:
    _afford(turn)
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
        gate=Providers(runtime.store, runtime.settings().breaker, turn.claim.agent),
    )
    if reply.usd is None and turn.agent.budget.usd_per_day is not None:
        _unpriced(reply.model)
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
def _unpriced(name: str) -> None:
    """Say once that a model's calls count for nothing against a budget in dollars."""
    reason = f"{name} has no price: its dollars are not counted, only its tokens are"
    logger.warning(reason)
    # The answer is paid for, and must reach the journal whether or not this can be told.
    with suppress(BrokerUnavailable):
        bus.alert(runtime.store(), "unpriced_model", reason, once_in_s=DAY_S)
