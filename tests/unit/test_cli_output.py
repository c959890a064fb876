"""Output for people: nothing that repaints a terminal, fitting units, one line an event."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.cli import output
from fleet.ledger.bus import parse_entry


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
