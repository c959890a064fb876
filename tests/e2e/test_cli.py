"""The command line beside a running fleet: sending, waiting, looking, and stepping in."""

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.running import HEAD, Place, place
from tests.fixtures.processes import wait_until

pytestmark = pytest.mark.timeout(150)

CONFIG = (
    HEAD
    + """
[agents.archie]
model = "echo/brief"
[agents.gem]
model = "echo/brief"
[agents.slow]
runner = "python"
python = "my_agents:slow"
[agents.broken]
runner = "python"
python = "my_agents:broken"
retry = { attempts = 1, min_age_s = 0 }
[agents.stuck]
model = "echo/hang"
timeout_s = 1
retry = { attempts = 1, min_age_s = 0 }
[routes]
default = ["archie"]
groups = { pair = ["archie", "gem"] }
"""
)

AGENTS = """
import time

def slow(turn):
    time.sleep(float(turn.text))
    return f"slept {turn.text}"

def broken(turn):
    raise RuntimeError(turn.text)
"""

#: Nowhere but where content is asked for.
SECRET = "the-launch-code-is-4711"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "my_agents.py").write_text(AGENTS)
    with place(folder, CONFIG) as here:
        here.up()
        yield here
        assert here.stop() == 0, here.said


def test_send_wait_shows_progress_and_then_the_answer(fleet: Place) -> None:
    answer = fleet.fleet("send", "hello", "--to", "archie", "--wait")
    assert answer.code == 0
    assert answer.out == "You said: hello\n"
    seen = re.findall(r"dispatch_\w+", answer.err)
    assert seen == ["dispatch_queued", "dispatch_started", "dispatch_completed"]


def test_answers_of_several_agents_carry_their_names(fleet: Place) -> None:
    answer = fleet.fleet("send", "hello", "--to", "@pair", "--wait")
    assert answer.code == 0
    assert answer.out == "archie: You said: hello\ngem: You said: hello\n"


def test_send_wait_exits_1_and_says_why_when_it_does_not_complete(fleet: Place) -> None:
    answer = fleet.fleet("send", "x", "--to", "stuck", "--to", "gem", "--wait")
    assert answer.code == 1
    assert answer.out == "gem: You said: x\n"
    assert answer.err.splitlines()[-1].startswith("fleet: stuck: dead (timeout: ")


def test_a_group_is_followed_and_looked_up_as_one_event(fleet: Place) -> None:
    args = ("--to", "@pair", "--to", "broken", "--idempotency-key", "group-1")
    answer = fleet.fleet("send", "x", *args, "--wait")
    assert answer.code == 1
    assert "2 of 3 completed" in answer.err
    event = fleet.fleet("queue", "inspect", "group-1", "--json").json
    assert (event["state"], event["outcomes"]) == ("ended", {"completed": 2, "dead": 1})
    assert "You said" not in str(event)
    shown = fleet.fleet("queue", "inspect", "group-1", "--show-content")
    assert shown.out.count("You said: x") == 2
    assert fleet.fleet("queue", "inspect", "group-1", "--source", "ci").code == 1


def test_send_wait_json_is_the_whole_outcome(fleet: Place) -> None:
    answer = fleet.fleet("send", "x", "--to", "broken", "--wait", "--json")
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    (dispatch,) = answer.json["dispatches"]
    assert (dispatch["state"], dispatch["stage"]) == ("dead", "tool")


def test_a_time_out_ends_the_waiting_and_not_the_dispatch(fleet: Place) -> None:
    answer = fleet.fleet("send", "2", "--to", "slow", "--wait", "--timeout", "0.5")
    assert answer.code == 1
    said = re.search(r"fleet: Not ended after 0\.5 s: .*`fleet queue inspect (\S+)`", answer.err)
    assert said
    wait_until(lambda: fleet.state(said[1]) == "completed", 20)


def test_send_wait_survives_the_death_of_the_broker(fleet: Place) -> None:
    waiting = fleet.popen("send", "3", "--to", "slow", "--wait")
    listing = ("queue", "list", "-a", "slow", "-s", "active", "--json")
    wait_until(lambda: bool(fleet.fleet(*listing).json["dispatches"]), 20)
    broker = json.loads((fleet.folder / ".fleet/broker/endpoint.json").read_text())
    os.kill(broker["pid"], signal.SIGKILL)
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (0, "slept 3\n"), err


def test_on_a_terminal_progress_is_redrawn_and_the_answer_stays(fleet: Place) -> None:
    main, terminal = pty.openpty()
    waiting = subprocess.Popen(
        fleet.argv("send", "1", "--to", "slow", "--wait"),
        cwd=fleet.folder,
        env={**fleet.env, "TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = _read_all(main)
    assert waiting.wait(30) == 0
    assert "active" in shown
    assert shown.rstrip().endswith("slept 1")


def test_sending_answers_like_the_api(fleet: Place) -> None:
    answer = fleet.fleet("send", "hello", "--to", "gem", "--json")
    assert answer.code == 0
    assert answer.json.keys() == {"event_id", "dispatches", "duplicate"}
    assert [row["agent"] for row in answer.json["dispatches"]] == ["gem"]


def test_the_same_idempotency_key_is_the_same_event(fleet: Place) -> None:
    first = fleet.fleet("send", "once", "--idempotency-key", "k-1", "--json").json
    again = fleet.fleet("send", "once", "--idempotency-key", "k-1", "--json").json
    assert again == {**first, "duplicate": True}
    waited = fleet.fleet("send", "once", "--idempotency-key", "k-1", "--wait")
    assert waited.out == "You said: once\n"
    other = fleet.fleet("send", "twice", "--idempotency-key", "k-1")
    assert (other.code, other.out) == (1, "")
    assert other.err.count("\n") == 1
    assert "other content" in other.err


def test_a_cloud_event_from_standard_input_and_an_option_over_it(fleet: Place) -> None:
    event = {
        "specversion": "1.0",
        "id": "c-1",
        "source": "/tests",
        "type": "t",
        "data": {"text": "from a file", "to": "archie"},
    }
    answer = fleet.fleet("send", "--event", "-", "--to", "gem", "--json", stdin=json.dumps(event))
    assert answer.json["event_id"] == "c-1"
    assert [row["agent"] for row in answer.json["dispatches"]] == ["gem"]


@pytest.mark.parametrize(
    "event",
    [
        "{",
        "[" * 100_000,
        "[]",
        "{}",
        '{"text": ""}',
        '{"text": "x", "to": "nobody"}',
        '{"text": "a\\u0000b"}',
        '{"text": "a\\ud800b"}',
        '{"text": "x", "id": "a\\nb"}',
        '{"text": "x", "time": "tomorrow"}',
        '{"text": "x", "source": "agent:archie"}',
        '{"text": "x", "data": {"n": NaN}}',
        json.dumps({"text": "x", "to": [f"a{n}" for n in range(1001)]}),
        json.dumps({"text": "x" * 1024 * 1024}),
    ],
    ids=lambda event: event[:30],
)
def test_a_bad_event_is_refused_in_one_sentence(fleet: Place, event: str) -> None:
    answer = fleet.fleet("send", "--event", "-", stdin=event)
    assert answer.code == 1
    assert answer.one_sentence()


def test_ten_thousand_mentions_are_text(fleet: Place) -> None:
    text = " ".join(f"@user{n}" for n in range(10_000))
    answer = fleet.fleet("send", "--event", "-", "--json", stdin=json.dumps({"text": text}))
    assert [row["agent"] for row in answer.json["dispatches"]] == ["archie"]


def test_content_is_shown_only_when_asked_for(fleet: Place) -> None:
    dispatch_id = fleet.outcome(SECRET, "--to", "gem")["dispatch_id"]
    inspect = ["queue", "inspect", dispatch_id]
    for command in (
        inspect,
        [*inspect, "--json"],
        ["queue", "list"],
        ["agents", "gem"],
        ["events"],
    ):
        answer = fleet.fleet(*command)
        assert answer.code == 0
        assert SECRET not in answer.out + answer.err
    shown = fleet.fleet(*inspect, "--show-content").out
    assert shown.count(SECRET) >= 2, "the event and the answer"
    logs = (fleet.folder / ".fleet/log").glob("*.log")
    assert not [log.name for log in logs if SECRET in log.read_text()]


def test_inspect_tells_the_steps_and_the_timings(fleet: Place) -> None:
    dispatch_id = fleet.outcome("hello", "--to", "archie")["dispatch_id"]
    record = fleet.fleet("queue", "inspect", dispatch_id, "--json").json
    assert [step["name"] for step in record["steps"]] == ["llm"]
    assert {"accepted_at", "started_at", "ended_at", "elapsed_s", "model"} <= record.keys()


def test_list_is_newest_first_and_filtered(fleet: Place) -> None:
    sent = [fleet.send("x", "--to", name) for name in ("archie", "gem", "archie")]
    rows = fleet.fleet("queue", "list", "-l", "3", "--json").json["dispatches"]
    assert [row["dispatch_id"] for row in rows] == sent[::-1]
    rows = fleet.fleet("queue", "list", "-a", "gem", "-l", "1", "--json").json["dispatches"]
    assert [row["dispatch_id"] for row in rows] == [sent[1]]
    assert "dispatch" in fleet.fleet("queue", "list").out


def test_a_paused_agent_keeps_its_events_until_it_is_resumed(fleet: Place) -> None:
    assert fleet.fleet("agents", "pause", "gem").out == "gem: paused\n"
    dispatch_id = fleet.send("x", "--to", "gem")
    record = fleet.fleet("queue", "inspect", dispatch_id, "--json").json
    assert (record["state"], record["waiting_for"]) == ("queued", "the agent is paused")
    status = {row["agent"]: row["status"] for row in fleet.fleet("agents", "--json").json}
    assert (status["gem"], status["archie"]) == ("paused", "idle")
    assert fleet.fleet("agents", "resume", "--all", "--json").code == 0
    wait_until(lambda: fleet.state(dispatch_id) == "completed", 20)


def test_cancel_and_drain_end_what_waits(fleet: Place) -> None:
    fleet.fleet("agents", "pause", "slow")
    one, two, three = (fleet.send("0", "--to", "slow") for _ in range(3))
    assert fleet.fleet("queue", "cancel", one, "--reason", "a test").code == 0
    assert fleet.fleet("queue", "cancel", one).code == 0, "repeating it is harmless"
    assert "--confirm" in fleet.fleet("queue", "drain", "slow").one_sentence()
    assert fleet.fleet("queue", "drain", "slow", "--confirm").out == "slow: 2 cancelled\n"
    assert {fleet.state(each) for each in (one, two, three)} == {"cancelled"}
    fleet.fleet("agents", "resume", "slow")


def test_what_has_ended_or_is_unknown_cannot_be_cancelled(fleet: Place) -> None:
    dispatch_id = fleet.outcome("x", "--to", "gem")["dispatch_id"]
    assert "completed" in fleet.fleet("queue", "cancel", dispatch_id).one_sentence()
    assert "completed" in fleet.fleet("queue", "retry", dispatch_id).one_sentence()
    for command in ("cancel", "retry", "inspect"):
        answer = fleet.fleet("queue", command, "nothing-has-this-id")
        assert (answer.code, "nothing-has-this-id" in answer.one_sentence()) == (1, True)


def test_dead_letters_are_listed_replayed_and_purged(fleet: Place) -> None:
    assert fleet.fleet("dlq", "purge", "--confirm").code == 0
    dispatch_id = fleet.outcome("x", "--to", "broken")["dispatch_id"]
    (row,) = fleet.fleet("dlq", "list", "--json").json["dispatches"]
    assert (row["dispatch_id"], row["stage"], row["attempt"]) == (dispatch_id, "tool", 1)
    assert "RuntimeError" in fleet.fleet("dlq", "show", dispatch_id).out
    nobody = fleet.fleet("dlq", "replay", "NOPE")
    assert (nobody.code, nobody.out) == (1, "")
    assert "NOPE" in nobody.err
    assert fleet.fleet("dlq", "replay", "--all").out == "1 queued again\n"
    wait_until(lambda: fleet.state(dispatch_id) == "dead", 20)
    assert fleet.fleet("dlq", "show", dispatch_id, "--json").json["generation"] == 2
    assert fleet.fleet("dlq", "purge", "--confirm").out == "1 purged\n"
    assert fleet.fleet("dlq", "list", "--json").json["dispatches"] == []


def test_events_are_replayed_from_a_place_and_filtered(fleet: Place) -> None:
    fleet.fleet("send", "x", "--to", "gem", "--wait")
    events = [json.loads(line) for line in fleet.fleet("events", "--json").out.splitlines()]
    assert events[0]["type"] == "agent_online"
    middle = events[len(events) // 2]["id"]
    later = fleet.fleet("events", "--json", "--since", middle, "--agent", "gem")
    types = [json.loads(line)["type"] for line in later.out.splitlines()]
    assert types[-3:] == ["dispatch_queued", "dispatch_started", "dispatch_completed"]
    assert fleet.fleet("events", "--type", "dispatch_completed").out.count("completed") > 0


def test_events_follow_shows_what_comes_until_ctrl_c(fleet: Place) -> None:
    here = json.loads(fleet.fleet("events", "--json").out.splitlines()[-1])["id"]
    following = fleet.popen("events", "--follow", "--since", here, "--type", "dispatch_completed")
    assert following.stdout is not None
    sent = [fleet.send("x", "--to", "gem"), fleet.send("x", "--to", "gem")]
    assert [one[:8] in following.stdout.readline() for one in sent] == [True, True]
    following.send_signal(signal.SIGINT)
    assert following.wait(20) == 130
    _, err = following.communicate()
    assert not err.strip()


def test_a_reader_that_goes_away_is_nothing_to_talk_about(fleet: Place) -> None:
    with fleet.popen("events", "--json") as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert command.wait(20) == 1
        assert command.stderr.read() == ""


def test_health_and_agents_tell_what_is_there(fleet: Place) -> None:
    health = fleet.fleet("health", "--json")
    assert (health.code, health.json["status"]) == (0, "ok")
    assert "ok" in fleet.fleet("health").out
    shown = fleet.fleet("agents", "gem", "--json").json
    assert (shown["agent"], shown["model"], shown["online"]) == ("gem", "echo/brief", True)
    assert "no agent" in fleet.fleet("agents", "nobody").one_sentence()


@pytest.mark.parametrize(
    "command",
    ["--help", "send x", "queue list", "queue stats", "agents", "events", "health", "route x"],
)
def test_reading_and_sending_load_neither_models_nor_celery(fleet: Place, command: str) -> None:
    answer = fleet.fleet(*command.split(), "--json", options=["-X", "importtime"])
    loaded = {line.rpartition("|")[2].strip() for line in answer.err.splitlines()}
    assert "click" in loaded
    assert not {"litellm", "openai", "celery", "kombu", "rich.console"} & loaded


def _read_all(terminal: int) -> str:
    shown = b""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other end was closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(terminal)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
