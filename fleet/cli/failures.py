"""The failures of a dispatch's attempts in the terminal."""

from collections.abc import Sequence
from textwrap import indent
from typing import Any

from fleet.cli.output import cell, print_line
from fleet.formats.redaction import HIDDEN


def print_failures(rows: Sequence[dict[str, Any]]) -> None:
    """When and why each attempt failed; below it what was said, where that may be shown."""
    print_line("failures")
    for row in rows:
        at = f", {row['at'][:19].replace('T', ' ')} UTC" if "at" in row else ""
        print_line(f"  attempt {row['attempt']}{at}: {row['stage']}: {cell(row['reason'])}")
        place = row.get("place")
        if place and place not in row["reason"]:
            print_line(f"    at {place}")
        for text in _said(row):
            print_line(indent(cell(text), "    "))
    if any(HIDDEN in row.values() for row in rows):
        print_line("  (--show-content shows what was said)")


def _said(row: dict[str, Any]) -> list[str]:
    message, traceback = row.get("message", ""), row.get("traceback", "")
    if HIDDEN in (message, traceback):
        return []
    # A traceback ends with the message.
    return [text for text in ("" if message in traceback else message, traceback) if text]
