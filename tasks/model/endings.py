"""The meaning of each way in which a model can end its answer.

An ending is an answer, an answer marked as cut, or a failure of that model, after which the next
one is asked. `docs/guides/llm.md` has the same table. Silence is never an answer by itself.
"""

from collections.abc import Mapping
from typing import Any

from tasks.model.reply import AttemptVerdict, CallFailure, Demands

#: Nothing was said, although the model ended by itself.
EMPTY = "EmptyAnswer"
#: The provider broke off.
BROKEN = "AnswerBroken"
CUT = "AnswerCut"
REFUSED = "ModelRefused"
WITHHELD = "ContentPolicyViolationError"

_LENGTH, _UNKNOWN = "length", "unknown"

#: Finish reasons in lower case, as providers send them. No reason counts as the end.
_ENDED = frozenset(
    {
        *("", "stop", "end", "end_turn", "eos", "eos_token", "stop_sequence", "complete"),
        *("completed", "tool_calls", "tool_call", "tool_use", "function_call"),
        "finish_reason_unspecified",
    }
)
_AT_THE_LIMIT = frozenset(
    {
        *("length", "max_tokens", "max_output_tokens", "model_length", "token_limit", "incomplete"),
        *("model_context_window_exceeded", "context_length_exceeded", "compaction"),
    }
)
_BY_A_FILTER = frozenset(
    {
        *("content_filter", "content_filtered", "safety", "recitation", "language", "blocklist"),
        *("prohibited_content", "spii", "sensitive", "guardrail_intervened", "error_toxic"),
        *("image_safety", "other"),
    }
)
_BY_A_FAULT = frozenset(
    {
        *("error", "network_error", "server_error", "timeout", "abort", "aborted", "overloaded"),
        *("cancelled", "canceled", "insufficient_system_resource", "malformed_function_call"),
        *("malformed_response", "unexpected_tool_call", "missing_thought_signature"),
        "too_many_tool_calls",
    }
)


def reason_of(sent: str, choice: Any) -> str:
    """The finish reason: as it was sent, else as LiteLLM has it."""
    if sent:
        return sent
    native = getattr(choice, "provider_specific_fields", None) or {}
    return str(native.get("native_finish_reason") or choice.finish_reason or "")


def is_end(reason: str) -> bool:
    """True for a reason after which an answer is whole, and for none."""
    return reason.lower() in _ENDED


def cut_by(reason: str) -> str:
    """`length` or `unknown` for a reason after which text may lack its end, otherwise empty."""
    name = reason.lower()
    if name in _AT_THE_LIMIT:
        return _LENGTH
    known = _ENDED | _BY_A_FILTER | _BY_A_FAULT | {"refusal"}
    return "" if name in known else _UNKNOWN


def failure_in(
    model: str,
    message: Mapping[str, Any],
    reason: str,
    *,
    refused: bool,
    offered: bool,
    demands: Demands,
) -> CallFailure | None:
    """The failure that a whole message is; None for an answer and for calls of tools.

    `offered`: the model had tools to call.
    """
    said, calls, cut = bool((message.get("content") or "").strip()), _calls(message), cut_by(reason)
    name = reason.lower()
    if refused or name == "refusal":
        return _not_here(REFUSED, f"{model}: it refused to answer")
    if name in _BY_A_FILTER:
        return _not_here(WITHHELD, f"{model}: the provider withheld its answer")
    if name in _BY_A_FAULT:
        return _passing(BROKEN, f"{model}: the provider broke off its answer")
    if cut == _LENGTH and calls:
        return _not_here(CUT, f"{model}: a call of a tool was cut at the limit of tokens")
    if cut == _LENGTH and not said:
        return _not_here(CUT, f"{model}: it reached the limit of tokens before it said anything")
    if cut and demands.whole:
        return _not_here(
            CUT, f"{model}: its answer was cut, and a stage of a chain needs all of it"
        )
    if said or (calls and offered):
        return None
    if calls:
        return _passing(EMPTY, f"{model}: it called a tool, and there is none")
    return None if demands.allow_empty else _passing(EMPTY, f"{model}: its answer was empty")


def _calls(message: Mapping[str, Any]) -> bool:
    return bool(message.get("tool_calls") or message.get("function_call"))


def _not_here(kind: str, sentence: str) -> CallFailure:
    return CallFailure(kind, AttemptVerdict.NEXT_TIER, sentence)


def _passing(kind: str, sentence: str) -> CallFailure:
    return CallFailure(kind, AttemptVerdict.RETRY, sentence)
