"""A whole fleet's logs after agents and senders that speak of content in every way: none of it."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from fleet.system.api_address import read_address
from tests.e2e.running import HEAD, Place, place
from tests.fixtures.fleet import ROOT
from tests.fixtures.loud_agents import ACTIONS
from tests.fixtures.processes import wait_until

pytestmark = pytest.mark.timeout(180)

CANARY = "canary-4711"

CONFIG = (
    HEAD.replace("enabled = false", "port = 0")
    + """
[agents.loud]
runner = "python"
python = "tests.fixtures.loud_agents:play"
retry = { attempts = 1, min_age_s = 0 }
[routes]
default = ["loud"]
"""
)

#: A bare producer that knows neither our tasks nor their arguments, and one that knows no protocol.
SENDER = """
import sys
from celery import Celery

url, canary = sys.argv[1:]
app = Celery(broker=url, set_as_current=False)
for queue in ("agent.loud", "intake"):
    app.send_task("fleet.dipsatch", args=[canary], kwargs={"text": canary}, queue=queue)
    app.send_task("fleet.dispatch", args=[canary, canary], kwargs={"text": canary}, queue=queue)
    app.send_task("fleet.intake", args=[{"text": canary, canary: canary}], queue=queue)
    app.send_task("fleet.intake", kwargs={"event": canary, "wrong": canary}, queue=queue)
    app.send_task("fleet.dipsatch", args=[canary], queue=queue, serializer="pickle")
    app.send_task("fleet.intake", args=[canary], queue=queue, eta="2020-01-01T00:00:00")
    with app.connection_for_write() as connection, connection.channel() as channel:
        put = connection.Producer(channel).publish
        put({"text": canary}, routing_key=queue)
        put({"text": canary}, routing_key=queue, headers={"task": "fleet.intake", "id": canary})
        put(f"[{canary}", routing_key=queue, headers={"task": "fleet.intake", "id": "1"},
            content_type="application/json", content_encoding="utf-8")
        put(canary.encode(), routing_key=queue, headers={"task": "fleet.intake", "id": "2"},
            content_type="application/x-other", content_encoding="binary")
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    env = {"PYTHONPATH": str(ROOT)}
    with place(tmp_path_factory.mktemp("fleet"), CONFIG, env) as here:
        here.up()
        yield here
        assert here.stop() == 0, here.said


def logs(fleet: Place) -> str:
    """Everything that the fleet's processes have written."""
    files = sorted((fleet.folder / ".fleet/log").glob("*.log*"))
    names = {file.name for file in files}
    assert {"agent.loud.log", "agents.log", "api.log", "flower.log", "shared.log"} <= names
    return fleet.said + "".join(file.read_text() for file in files)


def test_an_agent_that_speaks_of_content_in_every_way(fleet: Place) -> None:
    for way in sorted(ACTIONS):
        fleet.outcome(f"{way} {CANARY}", "--to", "loud")
    said = logs(fleet)
    assert CANARY not in said
    assert "ValueError" in said
    assert "loud_agents.py" in said, "the place is told"


def test_what_an_agent_raised_is_kept_for_who_may_see_it(fleet: Place) -> None:
    dispatch_id = fleet.outcome(f"raises {CANARY}", "--to", "loud")["dispatch_id"]
    for command in (("queue", "inspect"), ("dlq", "show")):
        hidden = fleet.fleet(*command, dispatch_id).out
        assert CANARY not in hidden
        assert re.search(r"raised ValueError at tests/fixtures/loud_agents.py:\d+\n", hidden)
        shown = fleet.fleet(*command, dispatch_id, "--show-content").out
        assert f"\n    ValueError: raises {CANARY}\n" in shown
        assert "    Traceback (most recent call last):\n" in shown


def test_the_logs_of_an_agent_are_shown_and_followed(fleet: Place) -> None:
    first = fleet.outcome("raises it", "--to", "loud")["dispatch_id"]
    following = fleet.popen("logs", "loud", "--follow", "--since", "5m")
    assert following.stdout is not None
    assert any(first in line for line in following.stdout)
    second = fleet.outcome("raises it", "--to", "loud")["dispatch_id"]
    assert any(second in line for line in following.stdout)
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=30)
    assert following.returncode == 0
    assert second in fleet.fleet("logs", "loud", "--lines", "10").out
    assert re.search(rf" loud +\[WARNING/.*{second} failed", fleet.fleet("logs").out)
    assert second not in fleet.fleet("logs", "shared").out
    assert fleet.fleet("logs", "load").one_sentence().endswith("did you mean 'loud'?")


def test_messages_that_celery_refuses(fleet: Place) -> None:
    url = fleet.fleet("broker", "--url").out.strip()
    url = re.sub("^(unix|socket)://", "redis+socket://", url)
    done = subprocess.run(
        [sys.executable, "-c", SENDER, url, CANARY],
        cwd=fleet.folder,
        env=fleet.env,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("agent.loud", "shared"):
        log = fleet.folder / f".fleet/log/{name}.log"
        wait_until(lambda log=log: "fleet.dipsatch" in log.read_text(), 30)  # type: ignore[misc]
    fleet.outcome(f"logs {CANARY}", "--to", "loud")
    assert CANARY not in logs(fleet)


def test_requests_that_the_api_refuses(fleet: Place) -> None:
    url = read_address(fleet.folder / ".fleet")
    with httpx.Client(base_url=str(url), trust_env=False) as client:
        client.get("/events", params={"text": CANARY})
        client.get(f"/dispatches/{CANARY}", params={"text": CANARY})
        client.post("/events", content=f'{{"text": "{CANARY}"')
        client.post("/events", json={"text": CANARY, CANARY: CANARY})
        client.post("/mcp", json={"method": CANARY}, headers={"x-canary": CANARY})
    assert CANARY not in logs(fleet)
