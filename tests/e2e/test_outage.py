"""The embedded broker hangs, and other things happen too: every event still runs once."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from fleet.system.api_address import read_address
from tests.e2e.running import HEAD, Place, place
from tests.fixtures.processes import wait_until

pytestmark = pytest.mark.timeout(180)

CONFIG = (
    HEAD.replace("[fleet]", "[fleet]\nlease_ttl_s = 1.5")
    + """
[breaker]
failure_threshold = 1
reset_timeout_s = 1
[agents.echo]
runner = "python"
python = "my_agents:echo"
[agents.frugal]
runner = "python"
python = "my_agents:echo"
budget = { tokens_per_day = 1000 }
[routes]
default = ["echo"]
"""
)
CODE = """
def echo(turn):
    with open("diary", "a") as diary:
        diary.write(turn.text + "\\n")
    return turn.step("echo", {}, lambda: f"You said: {turn.text}")
"""
TWO = ("echo", "frugal")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "my_agents.py").write_text(CODE)
    with place(tmp_path, CONFIG) as found:
        found.up()
        yield found
        assert found.stop() == 0


def broker_of(here: Place) -> psutil.Process:
    (file,) = (here.folder / ".fleet" / "broker").glob("endpoint.json")
    return psutil.Process(json.loads(file.read_text())["pid"])


@contextmanager
def hanging(broker: psutil.Process) -> Iterator[None]:
    broker.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        broker.send_signal(signal.SIGCONT)


def post(here: Place, event_id: str, to: str = "echo") -> str:
    """Send an event over HTTP; its dispatch's id."""
    event = {"id": event_id, "to": to, "text": event_id}
    answer = httpx.post(f"{read_address(here.folder / '.fleet')}/events", json=event, timeout=30)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["dispatches"][0]["dispatch_id"])


def all_imported(here: Place) -> None:
    wait_until(lambda: here.fleet("health", "--json").json["g4"]["spooled"] == 0, 60)


def runs(here: Place, text: str) -> int:
    return (here.folder / "diary").read_text().splitlines().count(text)


def test_what_was_accepted_outlives_commands_that_come_and_go_and_a_kill_of_everything(
    here: Place,
) -> None:
    broker_of(here).send_signal(signal.SIGSTOP)
    accepted = []
    for number in range(4):
        accepted += [post(here, f"{to}-{number}-{n}", to) for n in range(3) for to in TWO]
        accepted.append(here.send(f"sent-{number}"))
    accepted += [post(here, f"{to}-last", to) for to in TWO]
    here.kill_everything()
    here.up()
    all_imported(here)
    for dispatch_id in accepted:
        wait_until(lambda one=dispatch_id: here.state(one) == "completed", 30)  # type: ignore[misc]


def test_an_event_that_ran_in_one_outage_does_not_run_in_the_next(here: Place) -> None:
    broker = broker_of(here)
    for outage in ("first", "second"):
        with hanging(broker):
            # It costs a timeout, and may have landed.
            post(here, f"opens the {outage}", "frugal")
            repeated = post(here, "repeated")
            # Whatever may run before it has run by then.
            assert here.outcome(f"the {outage}")["state"] == "completed"
            assert runs(here, "repeated") == 1
        all_imported(here)
    wait_until(lambda: here.state(repeated) == "completed", 30)
    assert runs(here, "repeated") == 1
    alerts = [line for line in here.fleet("events", "--json").out.splitlines() if '"alert"' in line]
    assert not [line for line in alerts if "ran_twice" in line]
