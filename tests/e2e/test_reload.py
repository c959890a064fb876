"""`fleet reload`: a running fleet takes its changed configuration, and cuts no turn for it."""

import json
import signal
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from fleet.system.api_address import read_address
from tests.e2e.running import HEAD, UP_S, Place, place
from tests.fixtures.processes import wait_until

pytestmark = pytest.mark.timeout(180)

#: Each agent's answer begins with its instructions.
CODE = """
import os, time

def echo(turn):
    print(turn.claim.agent, "speaks", flush=True)
    return f"{turn.agent.instructions}: {turn.text}"

def slow(turn):
    while not os.path.exists(turn.text):
        time.sleep(0.01)
    return f"{turn.agent.instructions}: {turn.text}"

def ends(turn):
    os._exit(3)
"""


def agent(name: str, instructions: str, function: str = "echo") -> str:
    return (
        f'[agents.{name}]\nrunner = "python"\npython = "my_agents:{function}"\n'
        f'instructions = "{instructions}"\n'
    )


def routes(*default: str) -> str:
    return f"[routes]\ndefault = {list(default)}\n"


#: A model that does not exist keeps no fleet from starting.
TYPO = '[agents.typo]\nmodel = "echo/brif"\n'
FIRST = HEAD + agent("echo", "first") + agent("slow", "first", "slow") + TYPO + routes("echo")
ENDS = agent("echo", "first", "ends")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One fleet for all tests, which change it one after the other."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "my_agents.py").write_text(CODE)
    with place(folder, FIRST) as found:
        found.up()
        yield found
        assert found.stop() == 0


def answer(here: Place, *args: str) -> str:
    return here.fleet("send", *args, "--wait", "--timeout", "60").out.rstrip()


def test_it_says_what_comes_next_while_it_starts(here: Place) -> None:
    for name in ("echo", "slow"):
        assert f"fleet: {name} is ready after " in here.said
    (command,) = (line for line in here.said.splitlines() if line.startswith("  next"))
    assert command.split()[1:] == ["fleet", "send", "Hello", "--wait"]
    assert str(here.folder / ".fleet/log") in here.said
    fault = "typo cannot call echo/brif: there is no such echo; did you mean echo/brief?"
    wait_until(lambda: fault in here.said)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (FIRST + "[agents.x", "is not valid TOML"),
        (FIRST + agent("x", "", "nobody"), "agents.x.python: my_agents:nobody has no nobody"),
        (HEAD + agent("echo", "") + routes("slow"), "routes.default names 'slow'"),
    ],
    ids=["no TOML", "no such code", "no such agent"],
)
def test_a_broken_file_changes_nothing_and_is_told(here: Place, text: str, fault: str) -> None:
    here.write(text)
    done = here.fleet("reload")
    assert done.code == 1
    assert fault in done.one_sentence()
    assert "nothing was changed: " in done.err


def test_what_was_refused_has_no_effect(here: Place) -> None:
    here.write(FIRST)
    assert here.fleet("reload").out == "nothing has changed\n"
    assert answer(here, "hello") == "first: hello"


def test_settings_routes_and_agents_change_and_a_running_turn_ends_as_it_began(
    here: Place,
) -> None:
    running, waiting = (here.send("gate", "--to", "slow") for _ in range(2))
    wait_until(lambda: here.state(running) == "active")
    changed = agent("echo", "second") + agent("slow", "second", "slow") + agent("late", "new")
    here.write(HEAD + changed + routes("late"))
    done = here.fleet("reload")
    assert done.code == 0, done.err
    assert "added: late" in done.out
    assert "agents.echo.instructions" in done.out
    assert "routes.default" in done.out
    assert "slow ends its turn with the settings it began with" in done.out
    assert answer(here, "hello") == "new: hello"
    log = here.folder / ".fleet/log/agent.late.log"
    wait_until(lambda: log.exists() and "late speaks" in log.read_text())
    assert answer(here, "hello", "--to", "echo") == "second: hello"
    (here.folder / "gate").touch()
    wait_until(lambda: here.state(waiting) == "completed")
    for dispatch_id, said in ((running, "first: gate"), (waiting, "second: gate")):
        record = here.fleet("queue", "inspect", dispatch_id, "--show-content", "--json").json
        assert (record["answer"], record["attempt"]) == (said, 1), "no turn was cut"


def test_work_of_a_removed_agent_is_kept_and_told(here: Place) -> None:
    """The agent that the test before has added."""
    assert here.fleet("agents", "pause", "late").code == 0
    waiting = here.send("hello", "--to", "late")
    here.write(FIRST)
    done = here.fleet("reload")
    assert "removed: late" in done.out
    assert "late is not in the configuration any more and still has work: 1 queued" in done.out
    assert here.fleet("send", "x", "--to", "late").code == 1
    assert here.fleet("queue", "move", "late", "echo", "--json").json["moved"] == 1
    wait_until(lambda: here.state(waiting) == "completed")


def test_what_needs_a_restart_is_told_and_the_rest_is_taken(here: Place) -> None:
    """No request is refused meanwhile: the API's socket stays open."""
    before = read_address(here.folder / ".fleet")
    fixed = HEAD.replace("[fleet]", '[fleet]\ndurability = "everysec"').replace("= 0", "= 1")
    here.write(fixed + agent("echo", "second") + routes("echo"))
    with here.popen("reload", "--json") as process:
        while process.poll() is None:
            with suppress(httpx.RemoteProtocolError, httpx.ReadError):  # cut off, not refused
                assert httpx.get(f"{before}/livez", timeout=60).status_code == 200
        told = json.loads(process.communicate()[0])
    assert told["ok"]
    (line,) = (line for line in told["lines"] if "restart" in line)
    assert line == "only a restart of `fleet up` changes fleet.durability, api.port"
    assert answer(here, "hello") == "second: hello"
    assert read_address(here.folder / ".fleet") == before


def test_an_agent_takes_changes_after_its_turns_process_has_died(here: Place) -> None:
    here.write(FIRST.replace(agent("echo", "first"), ENDS))
    assert here.fleet("reload").code == 0
    died = here.send("hello")
    wait_until(lambda: here.state(died) == "dead")
    here.write(FIRST)
    done = here.fleet("reload")
    assert done.code == 0, done.err
    assert "ends its turn" not in done.out
    assert answer(here, "hello") == "first: hello"


def fence(here: Place, name: str) -> int:
    """The token of an agent's worker."""
    return int(here.fleet("agents", "show", name, "--json").json["fence"])


def test_only_the_worker_of_a_changed_agent_is_replaced(here: Place) -> None:
    here.write(FIRST)
    here.fleet("reload")
    before = {name: fence(here, name) for name in ("echo", "slow")}
    here.write(FIRST.replace(agent("echo", "first"), agent("echo", "other")))
    assert here.fleet("reload").code == 0
    assert answer(here, "hello") == "other: hello"
    assert fence(here, "slow") == before["slow"]
    assert fence(here, "echo") > before["echo"]


def test_changed_code_is_taken_and_told(here: Place) -> None:
    here.write(FIRST)
    here.fleet("reload")
    typo = fence(here, "typo")
    (here.folder / "my_agents.py").write_text(CODE.replace(': {turn.text}"', ' says {turn.text}"'))
    done = here.fleet("reload")
    assert (done.code, done.out.splitlines()[0]) == (0, "changed: code in my_agents.py")
    assert answer(here, "hello") == "first says hello"
    assert fence(here, "typo") == typo, "it has no code"
    assert here.fleet("reload").out == "nothing has changed\n"
    (here.folder / "my_agents.py").write_text(CODE)
    assert here.fleet("reload").code == 0
    assert answer(here, "hello") == "first: hello"


def test_a_hangup_signal_reloads_where_no_terminal_was_closed(here: Place) -> None:
    here.write(FIRST.replace("first", "third"))
    before = here.said.count("fleet: reload: done after")
    here.signal(signal.SIGHUP)
    wait_until(lambda: here.said.count("fleet: reload: done after") > before, UP_S)
    assert answer(here, "hello") == "third: hello"


def test_without_a_running_fleet_it_says_so(
    here: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("none")
    with place(folder, FIRST) as elsewhere:
        done = elsewhere.fleet("reload")
    assert done.code == 1
    assert done.one_sentence().startswith("no fleet runs on ")
