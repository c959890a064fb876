"""A turn of ten steps, model and tool in turn, dies after each: the provider's log is the judge."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.store import keys
from tests.fakes.provider import Provider
from tests.fixtures.fleet import ROOT, Fleet, Tables, fleet_of
from tests.fixtures.marks import LITELLM_WARNINGS
from tests.fixtures.tools import CALLS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120), *LITELLM_WARNINGS]

#: Five calls of the model, each of which calls a tool; a last call of the model is the answer.
STEPS = 10
HOST = "import sys; from fleet.supervisor.host import serve; sys.exit(serve(log_level='INFO'))"
ENTRY = "[fleet.runners]\ndying = tests.chaos.turns:DyingLlm\n"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Fleet]:
    """An agent for each step: a worker that dies too often in a row is started with pauses."""
    folder = tmp_path_factory.mktemp("fleet")
    _install_runner(folder)
    agent = {
        "runner": "dying",
        "model": "openai/script",
        "params": {"api_base": provider.url, "api_key": "k"},
        "tools": ["kit"],
    }
    sections: Tables = {"tools.kit": {"python": "tests.fixtures.tools:kit"}}
    agents: Tables = {f"a{step}": agent for step in range(1, STEPS + 1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        with fleet_of(folder, agents, sections=sections) as fleet:
            path = f"{folder}:{ROOT}"
            host = fleet.start("host", sys.executable, "-c", HOST, PYTHONPATH=path)
            host.wait_said(" ready.", times=len(agents))
            yield fleet


def _install_runner(folder: Path) -> None:
    """As a package of somebody else's brings one along."""
    package = folder / "dying-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: dying\nVersion: 1\n")
    (package / "entry_points.txt").write_text(ENTRY)


@pytest.mark.parametrize(
    ("moment", "who"), [("kept", "child"), ("kept", "worker"), ("answered", "child")]
)
def test_nothing_that_was_kept_is_done_again(
    fleet: Fleet, provider: Provider, moment: str, who: str
) -> None:
    texts: dict[int, str] = {}
    for step in range(1, STEPS + 1):
        notes = [f"{moment} {who} {step} {number}" for number in range(STEPS // 2)]
        tools = ("read_note", "write_note")
        texts[step] = json.dumps(
            [[[tools[place % 2], {"name": name}]] for place, name in enumerate(notes)]
        )
    sent = {
        step: fleet.send(f"a{step}", text, subject=f"{moment} {who} {step}")
        for step, text in texts.items()
    }
    for step, dispatch_id in sent.items():
        record = fleet.wait_state(dispatch_id, "completed", timeout_s=60)
        assert (record["attempt"], record["losses"]) == ("2", "1"), step
        assert fleet.books.ends(dispatch_id) == ["dispatch_completed"]
        assert len(fleet.books.ledger.steps(dispatch_id)) == STEPS + 1
        # Steps 1, 3, 5 ... are the model's. What was answered and not kept is asked for again.
        again = step if moment == "answered" else 0
        assert asked(provider, texts[step]) == {
            number: 2 if number == again else 1 for number in range(1, STEPS + 2, 2)
        }
        assert ran(fleet, f"{moment} {who} {step} ") == {
            number: 2 if number == again else 1 for number in range(2, STEPS + 1, 2)
        }
    for step in sent:
        assert not fleet.books.store.client.hexists(keys.agent(f"a{step}"), "active")


def asked(provider: Provider, text: str) -> dict[int, int]:
    """How often the provider was asked for each step of the model in a turn."""
    found: Counter[int] = Counter()
    for request in provider.requests:
        messages: list[dict[str, Any]] = request.body["messages"]
        if messages[0]["content"] == text:
            found[len(messages)] += 1  # each round is a message of the model's and one of the tool
    return dict(found)


def ran(fleet: Fleet, prefix: str) -> dict[int, int]:
    """How often each step of a tool ran in a turn."""
    lines = (fleet.folder / CALLS).read_text().splitlines()
    names = [json.loads(line)[1] for line in lines]
    mine = [int(name.removeprefix(prefix)) for name in names if name.startswith(prefix)]
    return dict(Counter(2 * number + 2 for number in mine))
