"""The code and the commands of the README work as they stand there."""

import re
from pathlib import Path

import httpx
import pytest

from tests.e2e.running import HEAD, place

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()

pytestmark = pytest.mark.timeout(150)


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return found


def test_the_first_agent_and_the_ways_to_send(tmp_path: Path) -> None:
    first, stepped, producer = blocks("python")
    config, *_ = blocks("toml")
    calls = "from fleet import Turn\ncall_something = call_something_else = lambda x: x + '.'\n"
    (tmp_path / "my_agents.py").write_text(first)
    (tmp_path / "stepped.py").write_text(calls + stepped)
    more = '[agents.archie]\nrunner = "python"\npython = "stepped:answer"\n'
    with place(tmp_path, HEAD + config + more) as here:
        here.up()
        assert here.fleet("send", "hello", "--wait").out == "HELLO!\n"

        url = here.fleet("broker", "--url").out.strip()
        answer: dict[str, object] = {}
        exec(producer, {"URL": url, "print": answer.update})  # noqa: S102 - the README's own words
        assert answer["duplicate"] is False
        (row,) = here.fleet("queue", "list", "-a", "archie", "--json").json["dispatches"]
        assert answer["dispatches"] == [{"dispatch_id": row["dispatch_id"], "agent": "archie"}]

        said = re.search(r"API at (\S+)", here.said)
        assert said
        event = {"to": "archie", "text": "Hello"}
        assert httpx.post(f"{said[1]}/events", json=event).status_code == 202
        assert len(httpx.get(f"{said[1]}/dispatches?limit=3").json()["dispatches"]) == 3
        outcome = here.fleet("send", "step by step", "--to", "archie", "--wait")
        assert outcome.out == "step by step..\n"
        assert here.stop() == 0
