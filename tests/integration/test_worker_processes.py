"""Processes and standard output of a Python agent, in the child of a real worker."""

from collections.abc import Iterator

import pytest

from fleet.store import keys
from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.process_agents import LINES
from tests.fixtures.processes import wait_until

ANSWERS = {
    "fork": "3",
    "leaving returns": "parent 0",
    "leaving exits": "parent 7",
    "leaving raises": "parent 1",
    "print": "utf-8 False",
    "buffer": "6",
    "fileno": "10",
    "program": "0",
    "faulthandler": "enabled",
    **{f"process {method}": "put 0" for method in ("fork", "spawn", "forkserver")},
    **{f"pool {method}": "[2, 4]" for method in ("fork", "spawn", "forkserver")},
    **{f"executor {method}": "[2, 4]" for method in ("fork", "spawn", "forkserver")},
    **{f"terminate {method}": "-15" for method in ("fork", "spawn", "forkserver")},
    "manager spawn": "1",
}
SAID = {
    "print": ["printed at once", "printed to error"],
    "buffer": ["bytes"],
    "fileno": ["by number"],
    "program": ["program line 0", f"program line {LINES - 1}"],
    "faulthandler": ["in _faulthandler"],
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    play = {"python": "tests.fixtures.process_agents:play"}
    with fleet_of(tmp_path_factory.mktemp("fleet"), {"a": play}) as fleet:
        fleet.ready("a")
        yield fleet


@pytest.mark.parametrize("text", ANSWERS)
def test_an_agent_may(fleet: Fleet, text: str) -> None:
    dispatch_id = fleet.send("a", text)
    wait_until(lambda: fleet.books.state(dispatch_id) in {"completed", "dead"}, 60)
    assert fleet.books.store.client.get(keys.outcome(dispatch_id)) == ANSWERS[text]
    for words in SAID.get(text, ()):
        wait_until(lambda words=words: words in fleet.processes[0].said())  # type: ignore[misc]
