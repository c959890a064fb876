"""The end of a model's call: a reply, or an error with a verdict on the next call."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

#: One message of a conversation, as in the chat completions protocol.
Message = dict[str, Any]


class AttemptVerdict(StrEnum):
    """A failed call's verdict on the next call."""

    #: It may succeed later, here or elsewhere.
    RETRY = "retry"
    #: It cannot succeed here; another model or account may accept it.
    NEXT_TIER = "next_tier"
    #: The request itself is wrong; no tier will accept it.
    FAIL = "fail"


class Gate(Protocol):
    """Allows calls of a model with a key, and gets their outcomes."""

    def wait_s(self, model: str, key: str, call_s: float) -> float:
        """0.0 when a call of at most `call_s` seconds is allowed, otherwise the seconds to wait."""
        ...

    def report(
        self,
        model: str,
        key: str,
        outcome: Literal["ok", "failed", "limited", "denied"],
        reason: str = "",
        retry_after_s: float | None = None,
    ) -> float:
        """Report an outcome; the seconds to wait after a failed trial, or when asked to."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request to one tier; `error` is None where it answered."""

    model: str
    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class CallFailure:
    """One request that gave no answer."""

    kind: str
    verdict: AttemptVerdict
    sentence: str
    retry_after_s: float | None = None
    status: int | None = None
    #: Content: the provider's own words, without the key.
    said: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """Demands on an answer beyond those of the protocol."""

    #: One that was cut is none.
    whole: bool = False
    #: An empty one is an answer.
    allow_empty: bool = False
    #: A stream that ends with `[DONE]` and without a finish reason may be one; a tier can differ.
    trust_done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A response that is paid for; an answer unless `failure` is set."""

    text: str
    tool_calls: tuple[dict[str, Any], ...]
    #: The assistant message to append to the conversation; plain JSON.
    message: Message
    #: The tier's name as configured, `provider/model`.
    model: str
    #: 1 is `model`, 2 the first fallback.
    tier: int
    tokens_in: int
    tokens_out: int
    #: By LiteLLM's bundled price list; None for a model that is not in it.
    usd: float | None
    #: As the provider sent it; empty where it gave none.
    finish_reason: str
    attempts: tuple[Attempt, ...]
    #: `length` or `unknown`, where the text may lack its end.
    cut: str = ""
    #: The reason where it holds none.
    failure: CallFailure | None = None


class ModelError(Exception):
    """No tier gave an answer; the text is one sentence without any content or key.

    `kind` is LiteLLM's class name of the decisive failure: the first that may pass by itself,
    otherwise the last. `retryable` is true when any tier may answer later. `retry_after_s` is the
    shortest wait a provider asked for, in seconds. `said` is content: the providers' own words.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        retryable: bool,
        retry_after_s: float | None = None,
        attempts: tuple[Attempt, ...] = (),
        said: str = "",
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.attempts = attempts
        self.said = said
