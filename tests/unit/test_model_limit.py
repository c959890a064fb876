"""A time limit ends a call wherever it is, and the process is fit for the next one."""

import gc
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tasks.model import completion
from tasks.model.reply import Reply
from tests.fakes.provider import Provider
from tests.fixtures.marks import LITELLM_WARNINGS

pytestmark = LITELLM_WARNINGS


class Stop(BaseException):
    """A soft limit that no `except Exception` below can swallow."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


def ask(provider: Provider, name: str, on_token: Callable[[str], None] | None) -> Reply:
    return completion.complete(
        model=f"openai/{name}",
        fallbacks=["openai/ok"],
        messages=[{"role": "user", "content": "hi"}],
        timeout_s=30,
        deadline=time.monotonic() + 30,
        params={"api_base": provider.url, "api_key": "sk-x"},
        on_token=on_token,
    )


@pytest.fixture(scope="module", autouse=True)
def warmed_up() -> None:
    """The first call imports for a while, longer than the tests' limit."""
    with Provider() as provider:
        ask(provider, "ok", None)
        ask(provider, "ok", lambda _: None)


@pytest.fixture
def soft_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.4)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("on_token", [None, lambda _: None], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", ["hang", "stall", "slow"])
def test_a_limit_ends_a_call_at_once(
    provider: Provider,
    fault: str,
    on_token: Callable[[str], None] | None,
    request: pytest.FixtureRequest,
) -> None:
    request.getfixturevalue("soft_limit")
    started = time.monotonic()
    with pytest.raises(Stop):
        ask(provider, fault, on_token)
    assert time.monotonic() - started < 25
    assert [request.model for request in provider.requests] == [fault]
    # What the call left behind may be collected in the middle of the next one.
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        assert ask(provider, "ok", on_token).tier == 1
    finally:
        gc.set_threshold(*threshold)
