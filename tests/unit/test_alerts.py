"""Alerts: their conditions, their words, and the shapes of their messages."""

from typing import Any

import pytest

from fleet.config.settings import parse
from fleet.errors import ConfigError
from fleet.ledger.bus import BusEvent
from fleet.ops.alerts.conditions import current, dead_letter_reasons, new_events
from fleet.ops.alerts.message import TEXT_MAX, AlertMessage, body


def agent(**changes: Any) -> dict[str, Any]:
    return {
        "online": True,
        "paused": False,
        "active": None,
        "hold_s": 0.0,
        "hold_reason": None,
        **changes,
    }


def row(oldest_s: float = 0.0, **states: int) -> dict[str, Any]:
    return {"oldest_s": oldest_s, "states": states}


def names(beat_s: float | None = 1.0, **agents: tuple[dict[str, Any], dict[str, Any]]) -> list[str]:
    counts = {name: counts for name, (counts, _) in agents.items()}
    states = {name: state for name, (_, state) in agents.items()}
    return [condition.key for condition in current(counts, states, beat_s, {})]


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


def test_a_paused_agent_is_meant_to_stand_still() -> None:
    assert names(a=(row(900.0, queued=1), agent(paused=True, online=False))) == []
    assert names(a=(row(900.0, queued=1), agent(hold_s=20.0))) == []


def test_a_dead_letter_says_why_it_died() -> None:
    died = [
        entry("dispatch_dead", agent="a", stage="llm", reason="old"),
        entry("dispatch_dead", agent="a", stage="llm", reason="no such model"),
    ]
    (condition,) = current({"a": row(dead=2)}, {"a": agent()}, 1.0, dead_letter_reasons(died))
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
