"""`fleet doctor`: what could cost an event, and what to do about it."""

from dataclasses import asdict

import click

from fleet.cli.base import Command, wants_json
from fleet.cli.output import print_json, print_table
from fleet.config.settings import load
from fleet.ops.doctor import checks as examination


@click.command(cls=Command)
def doctor() -> int:
    """Check broker, limits, models, code and files; exit 1 when it cannot start or loses data."""
    settings = load()
    findings = examination.examine(settings, lambda: examination.store_of(settings))
    grave = [finding for finding in findings if finding.level == "error" or finding.loses_data]
    if wants_json():
        print_json(
            {
                "ok": not grave,
                "broker": examination.address(settings),
                "findings": [asdict(finding) for finding in findings],
            }
        )
    else:
        print_table(
            ["", "finding", "remedy"],
            [
                (_mark(finding.level, finding.loses_data), finding.what, finding.remedy or None)
                for finding in findings
            ],
        )
    return int(bool(grave))


def _mark(level: str, loses_data: bool) -> str:
    return "LOSES DATA" if loses_data else level
