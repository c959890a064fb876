"""Output for people: nothing that repaints a terminal, fitting units, one line an event."""

import ast
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.cli import output
from fleet.ledger.bus import parse_entry
from fleet.ledger.views import rfc3339


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("bell\x07 back\x08 return\r", "bell\\x07 back\\x08 return\\r"),
        ("\x9b31m", "\\x9b31m"),
        ("naïve 漢字 🚀", "naïve 漢字 🚀"),
        ("a\u202eb\u2066c\u200fd\u061ce", "a\\u202eb\\u2066c\\u200fd\\u061ce"),
        ("a\u2028b\x85c", "a\\u2028b\\x85c"),
    ],
)
def test_control_characters_are_shown_and_not_sent(text: str, shown: str) -> None:
    assert output.printable(text) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.04, "0.0s"),
        (59.9, "59.9s"),
        (90.0, "2m"),
        (7200.0, "2.0h"),
        (200_000.0, "2.3d"),
    ],
)
def test_durations_in_the_unit_a_person_would_choose(seconds: float | None, shown: str) -> None:
    assert output.duration(seconds) == shown


def test_an_event_is_one_line_whatever_it_holds() -> None:
    raw = {
        "type": "dispatch_failed",
        "epoch": "e",
        "agent": "gem",
        "attempt": "2",
        "dispatch_id": "d-1",
        "event_id": "e-1",
        "reason": "a\x1b[31m\nb",
        "will_retry": "true",
    }
    line = output.event_line(parse_entry("1772822677655-0", raw))
    assert "\n" not in line
    assert " ".join(line.split()) == (
        "18:44:37.655 dispatch_failed gem #2 d-1 reason=a\\x1b[31m b will_retry=yes"
    )


ODD = "a\x9b31m\u202eb\x7f"


@pytest.mark.parametrize("door", ["print_line", "note", "print_table", "print_pairs"])
def test_no_door_sends_what_repaints_or_reorders(
    capsys: pytest.CaptureFixture[str], door: str
) -> None:
    given: dict[str, Any] = {"print_table": (["name"], [(ODD,)]), "print_pairs": ([("name", ODD)],)}
    getattr(output, door)(*given.get(door, (ODD,)))
    shown = "".join(capsys.readouterr())
    assert "a\\x9b31m\\u202eb\\x7f" in shown


@pytest.mark.parametrize("door", [output.print_json, output.print_json_line])
def test_json_keeps_what_it_escapes(
    capsys: pytest.CaptureFixture[str], door: Callable[[Any], None]
) -> None:
    door({"é": ODD})
    shown = capsys.readouterr().out
    assert shown == '{"é": "a\\u009b31m\\u202eb\\u007f"}\n'
    assert json.loads(shown) == {"é": ODD}


def test_commands_print_through_these_doors_only() -> None:
    found = [
        f"{path.name}:{node.lineno}"
        for path in Path(output.__file__).parent.glob("*.py")
        if path.name != "output.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "click.echo"}
    ]
    assert found == []


def test_tables_take_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["name", "state"], [("[red]not markup[/red]", "dead"), (None, True)])
    shown = capsys.readouterr().out
    assert "[red]not markup[/red]" in shown
    assert "yes" in shown
    assert "\x1b" not in shown, "no colours into a pipe"


def test_json_for_a_pipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"text": "é\n"})
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    assert json.loads(shown) == {"text": "é\n"}


ID = "de7af89b-e194-51e1-8160-78b79247f81b"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "now"),
        (12.4, "12s ago"),
        (200, "3m ago"),
        (7300, "2h ago"),
        (200_000, "2d ago"),
        (-25.4, "in 25s"),
        (-90_000, "in 1d"),
    ],
)
def test_a_moment_is_told_as_its_distance(
    seconds: float, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    assert output.ago(rfc3339((now - seconds) * 1000)) == shown


def test_pairs_show_a_moment_with_its_distance(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_pairs([("state", "dead"), ("ended_at", rfc3339(time.time() * 1000 - 200_000))])
    assert capsys.readouterr().out.endswith("Z (3m ago)\n")


def test_only_an_id_of_the_fleets_own_is_shortened() -> None:
    assert output.short_id(ID) == "de7af89b"
    assert output.short_id("order-17-of-tuesday") == "order-17-of-tuesday"
    assert output.short_id(None) is None


@pytest.mark.parametrize("columns", ["40", "80", "120"])
def test_a_table_keeps_to_the_width_and_never_cuts_an_id(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    output.print_table(["dispatch", "agent", "why"], [(ID[:8], "archie", "the reason " * 12)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert sum(ID[:8] in line for line in lines) == 1
    output.print_table(["id", "why"], [(ID, "the reason " * 12)])
    assert ID in capsys.readouterr().out


def test_rows_stand_apart_where_the_columns_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    output.print_table(["dispatch", "agent", "why"], [(ID[:8], "archie", "a long reason")] * 2)
    row = "dispatch  de7af89b\nagent     archie\nwhy       a long reason\n"
    assert capsys.readouterr().out == f"{row}\n{row}"
    monkeypatch.setenv("COLUMNS", "16")
    output.print_table(["dispatch", "why"], [(ID[:8], "a long reason")])
    assert capsys.readouterr().out == ("dispatch  de7af89b\nwhy       a long\n          reason\n")


def test_a_column_needs_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["", ""], [("warning", "a remedy " * 50)])
    assert "warning" in capsys.readouterr().out


def test_moments_of_an_event_are_no_epoch_seconds() -> None:
    raw = {"type": "dispatch_failed", "epoch": "e", "dispatch_id": ID, "retry_at": "1772822707.5"}
    line = output.event_line(parse_entry("1772822677655-0", raw))
    assert " ".join(line.split()) == (
        "18:44:37.655 dispatch_failed de7af89b retry_at=2026-03-06T18:45:07Z"
    )
