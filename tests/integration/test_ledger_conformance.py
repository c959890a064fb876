"""Both ledgers keep the same promises to those who run turns: Valkey's, and the spool's."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet.config.settings import parse
from fleet.errors import Fenced
from fleet.ledger import Claim, Ending, Runs, State
from fleet.runtime import Runtime
from fleet.store import Store, keys
from routing import Event, decide
from tests.fixtures.ledger import Books, settings_for

AGENTS = {"a": {"runner": "python", "python": "nobody:nothing"}}
#: Claims in the name of another process each time.
Take = Callable[[], Claim | None]


def on_valkey(store: Store, texts: list[str]) -> tuple[Runs, Take]:
    books = Books(store, settings_for("a"))
    for text in texts:
        books.accept("a", text)

    def take() -> Claim | None:
        books.store.client.delete(keys.lease("a"))  # as when the time of the last holder is over
        return books.claim(books.held())

    return books.ledger, take


def in_spool(folder: Path, texts: list[str]) -> tuple[Runs, Take]:
    settings = parse({"fleet": {"data_dir": str(folder)}, "agents": AGENTS})
    runtime = Runtime(settings)
    runtime.breaker.record_failure("test", refusal="The password is wrong.")
    for number, text in enumerate(texts):
        event = Event.parse(
            {"to": "a", "text": text}, new_id=f"e{number}", now="2026-01-01T00:00:00Z"
        )
        runtime.spool.store([(event, decide(event, settings.rules()))])
    runs = runtime.spool_ledger
    fences = iter(range(1, 100))
    return runs, lambda: runs.claim("a", next(fences), "host:1")


@pytest.fixture(params=["valkey", "spool"])
def made(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[list[str]], tuple[Runs, Take]]]:
    if request.param == "valkey":
        store: Store = request.getfixturevalue("store")
        yield lambda texts: on_valkey(store, texts)
    else:
        yield lambda texts: in_spool(tmp_path, texts)


def test_in_order_each_once(made: Callable[[list[str]], tuple[Runs, Take]]) -> None:
    ledger, take = made(["one", "two"])
    for text in ("one", "two"):
        claim = take()
        assert claim is not None
        assert (claim.text, claim.attempt, claim.cancel) == (text, 1, "")
        assert ledger.commit(claim, Ending(answer="ok")) is State.COMPLETED
        assert ledger.commit(claim, Ending(answer="ok")) is State.COMPLETED
    assert take() is None


def test_another_process_goes_on_from_the_journal(
    made: Callable[[list[str]], tuple[Runs, Take]],
) -> None:
    ledger, take = made(["one", "two"])
    first = take()
    assert first is not None
    assert ledger.step(first, "1", "entry") == ""
    assert ledger.step(first, "1", "entry") == ""
    second = take()
    assert second is not None
    assert (second.dispatch_id, second.attempt) == (first.dispatch_id, 2)
    assert ledger.steps(second.dispatch_id) == {"1": "entry"}
    for late in (
        lambda: ledger.step(first, "2", "late"),
        lambda: ledger.commit(first, Ending(answer="late")),
    ):
        with pytest.raises(Fenced):
            late()
    assert ledger.commit(second, Ending(answer="ok")) is State.COMPLETED


def test_a_third_dead_process_is_the_last(
    made: Callable[[list[str]], tuple[Runs, Take]],
) -> None:
    _, take = made(["poison", "next"])
    claims = [take() for _ in range(4)]
    assert [claim.text if claim else None for claim in claims] == [
        *("poison", "poison", "poison", "next")
    ]
