"""Runner `llm`: one completion through LiteLLM, with the agent's instructions and fallbacks."""

from typing import Any

from fleet import context
from fleet.ledger import Failure, Said, Stage
from fleet.providers import Providers
from fleet.runner import TurnFailed
from fleet.turn import Turn
from tasks import model
from tasks.runners.briefing import briefed


class LlmRunner:
    """Asks the agent's model, or a fallback of it; each call is a journalled step."""

    def run(self, turn: Turn) -> str:
        """The model's answer. Raises TurnFailed with stage `llm`."""
        messages: list[dict[str, Any]] = []
        if turn.agent.instructions:
            messages.append({"role": "system", "content": turn.agent.instructions})
        messages += [_as_message(said, turn.claim.agent) for said in turn.history]
        messages.append({"role": "user", "content": briefed(turn.text, turn.place)})
        request = {"model": turn.agent.model, "messages": messages}
        try:
            reply = turn.step("llm", request, lambda: _ask(turn, messages))
        except model.ModelError as error:
            failure = Failure(
                stage=Stage.LLM,
                reason=str(error),
                retryable=error.retryable,
                retry_after_s=error.retry_after_s,
                kind=error.kind,
                hold=error.kind == model.HELD,
            )
            raise TurnFailed(failure) from error
        turn.facts.update(model=reply["model"], tier=reply["tier"])
        return str(reply["text"])


def _as_message(said: Said, agent: str) -> dict[str, Any]:
    """A message of the history: another agent's answer says whose it is."""
    other = said.role == "assistant" and said.agent != agent
    return {"role": said.role, "content": f"{said.agent}: {said.text}" if other else said.text}


def _ask(turn: Turn, messages: list[dict[str, Any]]) -> dict[str, Any]:
    reply = model.complete(
        model=str(turn.agent.model),
        fallbacks=turn.agent.fallbacks,
        messages=messages,
        timeout_s=turn.agent.call_timeout_s,
        deadline=turn.deadline,
        params=turn.agent.params,
        on_token=turn.say if turn.agent.stream else None,
        on_restart=turn.say_again,
        gate=Providers(context.store, context.settings().breaker, turn.claim.agent),
    )
    return {
        "text": reply.text,
        "model": reply.model,
        "tier": reply.tier,
        "tokens_in": reply.tokens_in,
        "tokens_out": reply.tokens_out,
        "usd": reply.usd,
        "finish_reason": reply.finish_reason,
    }
