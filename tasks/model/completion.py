"""One answer from a model, by the first of several tiers that answers.

LiteLLM is the adapter to the providers and nothing else: its own retries and fallbacks are off,
because they multiply (one error cost up to five requests), ignore deadlines and swallow signals.
So a tier is one request, the next tier is tried at once, and the ledger decides on a later attempt.

No text of a prompt, an answer or a provider's error reaches an exception's text or a log from here:
a provider's error may quote the prompt or the key. Its words are `said`, for those who see content.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from fleet.config.agents import ModelTier
from tasks.model.endings import EMPTY
from tasks.model.reply import (
    Attempt,
    AttemptVerdict,
    CallFailure,
    Demands,
    Gate,
    Message,
    ModelError,
    Reply,
)
from tasks.model.request import ModelAnswer, ask, plain
from tasks.model.tiers import Tier, tiers_of

#: Less than this cannot hold a request and its answer, so no tier is called.
MIN_CALL_S = 0.5
#: Time kept for each tier to come, or its equal share of less: enough for a short answer.
RESERVE_S = 10.0

#: Parameters that `complete` sets itself.
RESERVED_PARAMS = frozenset(
    {
        "model",
        "messages",
        "tools",
        "timeout",
        "stream",
        "stream_options",
        "fallbacks",
        "max_retries",
        "num_retries",
        "mock_response",
        "callbacks",
        "logger_fn",
    }
)

#: No tier can be called now: all breakers are open, or the providers asked to be left alone.
PROVIDERS_OPEN = "ProvidersOpen"
#: The key is wrong, or not paid for: no other call with this key can succeed. Some providers answer
#: 403 for a single request, too.
_KEY_DENIED = frozenset({401, 402})
_DENIED = _KEY_DENIED | {403}
#: A rate limit, or the quota of the key.
_LIMITED = 429


def complete(
    *,
    model: str,
    fallbacks: Sequence[ModelTier | str] = (),
    messages: Sequence[Message],
    timeout_s: float,
    deadline: float,
    tools: Sequence[Mapping[str, Any]] | None = None,
    params: Mapping[str, Any] | None = None,
    on_token: Callable[[str], None] | None = None,
    on_restart: Callable[[], None] | None = None,
    gate: Gate | None = None,
    demands: Demands = Demands(),  # noqa: B008 - frozen
    first: int = 1,
    earlier: Sequence[CallFailure] = (),
) -> Reply:
    """The reply of `model`, otherwise of the first fallback that replies.

    A reply without an answer has a `failure`. The caller keeps what is paid for, and calls again
    with the next tier as `first` and all failures as `earlier`.

    Each tier gets one request of at most `timeout_s` seconds. It gets less where later tiers would
    have no time left before `deadline` (of `time.monotonic`). No tier starts with less than
    `MIN_CALL_S`. `params` are those of `model`; see `tiers_of` for a fallback's.
    With `on_token` the answer is streamed in pieces of text. When a stream breaks, `on_restart` is
    called and the next tier starts anew; only the Reply counts. Errors of both are passed on.

    `gate` allows each request and gets its outcome; a tier that has an open breaker is skipped.
    Raises `ModelError`, of kind PROVIDERS_OPEN where all are, and `ValueError` for reserved params.
    """
    tiers = tiers_of(model, fallbacks, params or {}, demands.trust_done)
    request = _request(messages, tools, tiers)
    attempts: list[Attempt] = []
    failures = list(earlier)
    for number, tier in enumerate(tiers[first - 1 :], start=first):
        limit_s = _share(deadline - time.monotonic(), len(tiers) - number)
        if limit_s < MIN_CALL_S:
            failures.append(_late(tier))
            break
        limit_s = min(timeout_s, limit_s)
        call = {**tier.call, **request, "model": tier.model, "timeout": limit_s}
        send = partial(ask, call, replace(demands, trust_done=tier.trust_done), on_token)
        attempt, answer = _try_tier(tier, limit_s, gate, on_restart if number > 1 else None, send)
        attempts += [attempt] if attempt else []
        if isinstance(answer, ModelAnswer):
            return answer.reply(tier.model, number, tuple(attempts))
        failures.append(answer)
        if answer.verdict is AttemptVerdict.FAIL:
            break
    raise no_answer(failures, tuple(attempts))


def _late(tier: Tier) -> CallFailure:
    return CallFailure("Timeout", AttemptVerdict.RETRY, f"{tier.model}: no time was left")


def _share(left_s: float, to_come: int) -> float:
    """The part of the time left for one tier, when `to_come` others may have to follow."""
    each_s = left_s / (to_come + 1)
    if each_s < 2 * MIN_CALL_S:
        return left_s
    return left_s - to_come * min(RESERVE_S, each_s)


def _request(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None,
    tiers: Sequence[Tier],
) -> dict[str, Any]:
    """The part of the request that is the same for every tier."""
    if reserved := RESERVED_PARAMS & set().union(*(tier.params for tier in tiers)):
        raise ValueError(f"params may not set {', '.join(sorted(reserved))}")
    call = {"messages": plain(list(messages)), "max_retries": 0, "num_retries": 0}
    return call | {"tools": list(tools)} if tools else call


def _try_tier(
    tier: Tier,
    limit_s: float,
    gate: Gate | None,
    begin: Callable[[], None] | None,
    send: Callable[[], ModelAnswer | CallFailure],
) -> tuple[Attempt | None, ModelAnswer | CallFailure]:
    """One tier's answer, and its request: None where a breaker of it is open."""
    name = tier.model
    if gate is not None and (wait_s := gate.wait_s(tier.breaker, tier.key, limit_s)) > 0:
        sentence = f"{name}: {tier.breaker} is not called after its failures"
        return None, CallFailure(PROVIDERS_OPEN, AttemptVerdict.RETRY, sentence, wait_s)
    if begin is not None:
        begin()
    started = time.monotonic()
    answer = send()
    failure = answer.failure if isinstance(answer, ModelAnswer) else answer
    error = failure.kind if failure else None
    attempt = Attempt(model=name, seconds=time.monotonic() - started, error=error)
    if gate is not None and (wait_s := _report(gate, tier, failure)) > 0 and failure:
        # The key is still wrong, or the provider wants no call: this dispatch waits like the
        # others, and does not fail.
        sentence = f"{failure.sentence}; {tier.breaker} is not called again yet"
        open_until = CallFailure(PROVIDERS_OPEN, AttemptVerdict.RETRY, sentence, wait_s)
        return attempt, replace(open_until, said=failure.said)
    return attempt, answer


def _report(gate: Gate, tier: Tier, failure: CallFailure | None) -> float:
    """Report an answer to the tier's breakers: a model that refuses a request, or is silent, works.

    Returns for how many seconds no request is made: above 0 where the provider asked for a wait, or
    where a trial was denied the key again.
    """
    if failure is None:
        return gate.report(tier.breaker, tier.key, "ok")
    told = failure.sentence, failure.retry_after_s
    denied = failure.kind == "AuthenticationError" or failure.status in _DENIED
    works = failure.verdict is not AttemptVerdict.RETRY or failure.kind == EMPTY
    if works and not denied:
        return gate.report(tier.breaker, tier.key, "ok", *told)
    refusal: Literal["limited", "failed"] = "limited" if failure.status == _LIMITED else "failed"
    wait_s = gate.report(tier.breaker, tier.key, "denied" if denied else refusal, *told)
    key_denied = failure.kind == "AuthenticationError" or failure.status in _KEY_DENIED
    return wait_s if key_denied or (failure.retry_after_s and not denied) else 0.0


def no_answer(failures: Sequence[CallFailure], attempts: tuple[Attempt, ...] = ()) -> ModelError:
    """The error that the failures of all tiers together are."""
    made = [failure for failure in failures if failure.kind != PROVIDERS_OPEN]
    passing = _passing(made) or _passing(failures)
    waits = [f.retry_after_s for f in passing if f.retry_after_s is not None]
    return ModelError(
        f"no model answered: {'; '.join(failure.sentence for failure in failures)}",
        kind=(passing[0] if passing else failures[-1]).kind,
        retryable=bool(passing),
        retry_after_s=min(waits, default=None),
        attempts=attempts,
        said="\n".join(f"{one.sentence}\n{one.said}" for one in failures if one.said),
    )


def _passing(failures: Sequence[CallFailure]) -> list[CallFailure]:
    return [failure for failure in failures if failure.verdict is AttemptVerdict.RETRY]
