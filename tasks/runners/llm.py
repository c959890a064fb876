"""Runner `llm`: an agent's model through LiteLLM, with its instructions, fallbacks and tools.

The model is called, the tools that it requests are run, and it is called again with their results,
until it answers. Each call of the model and each call of a tool is a journalled step.
"""

from typing import Any

from fleet.ledger import Failure, FailureStage, SessionMessage
from fleet.turn.turn import Turn, TurnFailed
from tasks.runners.model_steps import ask
from tasks.tools import Toolset, declined, numbered, portable


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
            reply = ask(turn, messages, tools.specs)
            requested = numbered(reply.get("tool_calls", ()), turn.steps)
            if not requested or not tools.specs:
                if cut := reply.get("cut"):
                    turn.facts["cut"] = cut
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


def _as_message(message: SessionMessage, agent: str) -> dict[str, Any]:
    """A message of the history: another agent's answer begins with that agent's name."""
    other = message.role == "assistant" and message.agent != agent
    text = f"{message.agent}: {message.text}" if other else message.text
    return {"role": message.role, "content": text}
