"""`fleet alerts` at a terminal: the list, a silence, an acknowledgement, and wrong use."""

import json
from pathlib import Path

import pytest

from fleet import runtime
from fleet.cli import main
from fleet.config.settings import load
from fleet.ops.alerts.machine import MachineAlerts
from fleet.ops.alerts.sender import AlertSender
from fleet.store import Store
from tests.integration.api.test_api_alerts import CONDITIONS, compare


@pytest.fixture(autouse=True)
def _two_are_open(
    fleet_here: None, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path))
    compare(store, CONDITIONS)


def fleet(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    """Run `fleet alerts`: what it printed, or the sentence with which it refused."""
    with pytest.raises(SystemExit) as ended:
        main(["alerts", *args])
    printed = capsys.readouterr()
    assert ended.value.code == code, printed.err
    return printed.err if code else printed.out


def test_an_operators_round(capsys: pytest.CaptureFixture[str], store: Store) -> None:
    shown = fleet(capsys)
    assert "dead_letters" in shown
    assert "nearly full" in shown
    (one,) = (row for row in json.loads(fleet(capsys, "--json"))["open"] if row["name"] == "memory")
    said = fleet(capsys, "ack", one["id"][:6], "--by", "ann", "--comment", "on it")
    assert said == f"{one['id']} memory: acknowledged by ann\n"
    said = fleet(capsys, "silence", "dead_letters", "--for", "2h", "--by", "bob")
    assert said == "every dead_letters: silenced for 2h by bob\n"
    shown = fleet(capsys)
    assert "acknowledged by ann (on it)" in " ".join(shown.split())
    assert "every dead_letters is silenced until" in shown
    compare(store, [])
    assert fleet(capsys).startswith("no alert is open")
    shown = fleet(capsys, "--all")
    assert "earlier:" in shown
    assert "resolved" in shown
    assert json.loads(fleet(capsys, "--all", "--json"))["open"] == []
    fleet(capsys, "unsilence", "dead_letters")
    assert json.loads(fleet(capsys, "--json"))["silences"] == []


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("silence", "memory", "--for", "soon"), 2, "such as 90s, 30m, 2h"),
        (("silence", "memory", "--for", "90d"), 2, "from 1s to 30d"),
        (("silence", "memory"), 2, "--for"),
        (("silence", "memroy", "--for", "1h", "--by", "a"), 1, "did you mean memory?"),
        (("ack", "memory", "--by", "a"), 1, "by its id"),
        (("ack", "memory", "--by", " "), 2, "--by must be"),
        (("unsilence", "budget"), 1, "no silence of its own"),
    ],
)
def test_wrong_use_is_one_sentence(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], code: int, said: str
) -> None:
    assert said in fleet(capsys, *args, code=code)


def test_an_alert_of_this_machine_is_marked_while_the_store_is_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_BROKER_URL", "redis://127.0.0.1:1/0")
    load.cache_clear()
    runtime.set_current(None)
    times = iter((1000.0, 1060.0))
    machine = MachineAlerts(load(), AlertSender(""), now=lambda: next(times))
    for _ in range(2):
        machine.check(None, "no answer")
    machine.close()
    (one,) = json.loads(fleet(capsys, "--json"))["open"]
    said = fleet(capsys, "ack", one["id"], "--by", "ann")
    assert said == f"{one['id']} store_away: acknowledged by ann\n"
    said = fleet(capsys, "silence", one["id"][:6], "--for", "2h", "--by", "bob")
    assert said == f"{one['id']} store_away: silenced for 2h by bob\n"
    shown = " ".join(fleet(capsys).split())
    assert "acknowledged by ann; silenced until" in shown
    # Of the whole fleet, or unknown here: the store would have to say.
    for which in ("memory", "3f2a9c"):
        assert "The broker does not answer" in fleet(capsys, "silence", which, "--for=1h", code=1)
