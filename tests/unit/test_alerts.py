"""Alerts: their conditions, their words, and the shapes of their messages."""

import re
from pathlib import Path
from typing import Any

import pytest

from fleet.config.settings import parse
from fleet.errors import ConfigError
from fleet.formats.duration import seconds
from fleet.ledger.bus import BusEvent
from fleet.ledger.operations import NotPossible, Unknown
from fleet.ledger.refusals import Refusals
from fleet.ledger.starting import BEAT, START_S
from fleet.ops.alerts.conditions import current, new_events
from fleet.ops.alerts.message import TEXT_MAX, AlertMessage, body
from fleet.ops.alerts.names import NAMES
from fleet.ops.alerts.silences import AlertTarget, resolve

ROOT = Path(__file__).resolve().parents[2]


def agent(**changes: Any) -> dict[str, Any]:
    return {
        "online": True,
        "paused": False,
        "active": None,
        "held_s": 600.0,
        "hold_s": 0.0,
        "hold_reason": None,
        "pool": None,
        **changes,
    }


def row(oldest_s: float = 0.0, **states: int) -> dict[str, Any]:
    return {"oldest_s": oldest_s, "states": states}


def names(beat_s: float | None = 1.0, **agents: tuple[dict[str, Any], dict[str, Any]]) -> list[str]:
    counts = {name: counts for name, (counts, _) in agents.items()}
    states = {name: state for name, (_, state) in agents.items()}
    return [condition.key for condition in current(counts, states, beat_s, {})]


def after_s(starting: frozenset[str], beat_s: float | None = 1.0) -> dict[str, float]:
    """How long each condition must last, with an agent that has no worker."""
    found = current({"a": row()}, {"a": agent(online=False)}, beat_s, {}, starting=starting)
    return {condition.key: condition.for_s for condition in found}


def entry(kind: str, **fields: Any) -> BusEvent:
    return BusEvent(id="1-0", epoch="e", type=kind, time="", fields=fields)


def test_nothing_is_wrong_with_a_busy_fleet() -> None:
    assert names(a=(row(500.0, queued=9), agent(active="x")), b=(row(), agent())) == []


def test_each_thing_that_is_wrong_has_a_name() -> None:
    assert names(None) == ["beat_dead:"]
    assert names(16.0) == ["beat_dead:"]
    assert names(a=(row(), agent(online=False))) == ["agent_offline:a"]
    assert names(a=(row(60.0, queued=1), agent())) == ["stuck_queue:a"]
    assert names(a=(row(dead=2), agent())) == ["dead_letters:a"]


def test_a_pool_without_a_worker_is_one_thing_that_is_wrong() -> None:
    gone, late = agent(online=False, pool="p"), row(60.0, queued=1)
    assert names(a=(row(), gone), b=(late, gone)) == ["agent_offline:pool.p"]
    idle, busy = agent(pool="p"), agent(pool="p", active="x")
    assert names(a=(late, idle), b=(row(), idle)) == ["stuck_queue:pool.p"]
    assert names(a=(late, idle), b=(row(), busy)) == [], "all processes are busy with others"


def test_a_paused_agent_is_meant_to_stand_still() -> None:
    assert names(a=(row(900.0, queued=1), agent(paused=True, online=False))) == []
    assert names(a=(row(900.0, queued=1), agent(hold_s=20.0))) == []


def test_what_is_being_started_has_time_to_come_up() -> None:
    assert after_s(frozenset()) == {"agent_offline:a": 30.0}
    assert after_s(frozenset({"a"})) == {"agent_offline:a": START_S}
    assert after_s(frozenset({"b", BEAT}), None) == {"beat_dead:": START_S, "agent_offline:a": 30.0}


def test_a_worker_that_has_just_come_is_not_stuck() -> None:
    """The work may have waited for it all night."""
    assert names(a=(row(9000.0, queued=1), agent(held_s=5.0))) == []


@pytest.mark.parametrize(("lasted_s", "told"), [(0.0, 0), (19.0, 0), (20.0, 1)])
def test_refusals_need_an_operator_when_they_last(lasted_s: float, told: int) -> None:
    found = current({}, {}, 1.0, {}, refusals=Refusals(count=7, lasted_s=lasted_s))
    assert [condition.name for condition in found] == ["intake_refused"] * told


def test_every_name_is_in_the_manual_and_the_other_way_round() -> None:
    page = (ROOT / "docs" / "operations" / "monitoring.md").read_text()
    rows = re.findall(r"^\| (`[a-z_]+`.*?) \|", page.partition("## Alerts")[2], re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert told - {one for one in told if one.startswith("fleet_")} == set(NAMES)


@pytest.mark.parametrize(
    ("text", "span"), [("90s", 90), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("30d", 2592000)]
)
def test_a_span_of_time_is_read(text: str, span: float) -> None:
    assert seconds(text) == span


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "-2h", "2h!", "h2", "two hours", "1e3s"])
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as 90s, 30m, 2h"):
        seconds(text)


ALERTS = {
    one: AlertTarget(key=f"dead_letters:{one}", name="dead_letters", id=one, agent="a")
    for one in ("0123456789ab", "01234567ffff", "abcdef012345")
}


@pytest.mark.parametrize("text", ["abcdef", "abcdef012345"])
def test_an_alert_is_meant_by_the_beginning_of_its_id(text: str) -> None:
    assert resolve(text, ALERTS).id == "abcdef012345"


def test_a_kind_of_alert_is_meant_by_its_name() -> None:
    assert resolve("store_away", ALERTS) == AlertTarget(key="store_away", name="store_away")


def test_an_ambiguous_id_lists_the_candidates() -> None:
    with pytest.raises(NotPossible, match=r"0123456789ab \(dead_letters\), 01234567ffff"):
        resolve("012345", ALERTS)


@pytest.mark.parametrize(
    ("text", "said"), [("dead_leters", "did you mean dead_letters"), ("abc", "`fleet alerts`")]
)
def test_what_is_no_alert_is_told(text: str, said: str) -> None:
    with pytest.raises(Unknown, match=said):
        resolve(text, ALERTS)


def test_a_dead_letter_says_why_it_died() -> None:
    why = {"a": "llm: no such model"}
    (condition,) = current({"a": row(dead=2)}, {"a": agent()}, 1.0, why)
    assert condition.message == (
        "2 dead letters, the last one for llm: no such model; see `fleet dlq list`"
    )
    assert condition.count == 2


def test_news_are_passed_on_and_what_an_alerter_told_is_not() -> None:
    entries = [
        entry("dispatch_completed", agent="a"),
        entry("alert", name="crash_loop", reason="keeps ending", agent="a"),
        entry("alert", name="dead_letters", reason="1 dead letter", state="open"),
        entry("alert", name="stuck_queue", reason="nobody"),
        entry("breaker_opened", reason="5 failures"),
    ]
    assert [(item["name"], item["agent"]) for item in new_events(entries)] == [
        ("crash_loop", "a"),
    ]


ALERT = AlertMessage(
    id="7-1", name="agent_offline", agent="gem", reason="<@here> & co", state="open", at_ms=1
)


def test_discord_pings_nobody() -> None:
    sent = body("https://discord.com/api/webhooks/1/secret", ALERT)
    assert sent == {
        "content": "ALERT fleet: agent_offline (gem): <@here> & co",
        "allowed_mentions": {"parse": []},
    }


def test_slack_gets_its_three_characters_escaped() -> None:
    sent = body("https://hooks.slack.com/services/T/B/x", ALERT)
    assert sent == {"text": "ALERT fleet: agent_offline (gem): &lt;@here&gt; &amp; co"}


def test_others_get_every_field() -> None:
    sent = body("https://pager.example/hook", AlertMessage.of({**vars_of(ALERT), "unknown": 1}))
    assert sent["type"] == "alert"
    assert (sent["name"], sent["agent"], sent["state"]) == ("agent_offline", "gem", "open")
    assert sent["time"] == "1970-01-01T00:00:00.001Z"


def vars_of(message: AlertMessage) -> dict[str, Any]:
    return {name: getattr(message, name) for name in AlertMessage.__slots__}


def test_a_line_has_a_length_that_every_receiver_takes() -> None:
    assert len(AlertMessage(id="1", name="x", reason="y" * 5000).text) == TEXT_MAX


@pytest.mark.parametrize("url", ["discord.com/api/webhooks/1", "ftp://x/y", "https://", ""])
def test_a_webhook_that_is_no_url_is_refused(url: str) -> None:
    python = {"runner": "python", "python": "a:b"}
    with pytest.raises(ConfigError, match=r"alerts\.webhook"):
        parse({"agents": {"a": python}, "alerts": {"webhook": url}})
