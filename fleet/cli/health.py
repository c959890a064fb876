"""`fleet health`: the health document."""

from typing import Any

import click

from fleet.cli.backend import backend
from fleet.cli.base import Command, wants_json
from fleet.cli.output import duration, note, print_json, print_pairs, print_table


@click.command(cls=Command)
def health() -> int:
    """Print the health document; exit 1 when down."""
    document = backend().health()
    if wants_json():
        print_json(document)
    elif document["status"] == "down":
        gate = document["g4"]
        note(
            f"fleet: down: {document['reason']} "
            f"(breaker {gate['breaker']}, {_spooled(gate['spooled'])} in the spool)"
        )
    else:
        _show(document)
    return int(document["status"] == "down")


def _show(document: dict[str, Any]) -> None:
    saturation, counts = document["saturation"], document["g3"]
    tick = document["beat"]["last_tick_s"]
    print_pairs(
        [
            ("status", document["status"]),
            ("broker", document["g1"]["redis_url"]),
            (
                "queued",
                f"{saturation['queued']}, the oldest for {duration(saturation['oldest_s'])}",
            ),
            ("active", f"{saturation['active']} of {saturation['capacity']}"),
            ("breaker", document["g4"]["breaker"]),
            ("spooled", _spooled(document["g4"]["spooled"])),
            ("retrying", counts["retrying"]),
            ("dead", counts["dead"]),
            *((f"{name}, removed", _words(row)) for name, row in document["g2"]["removed"].items()),
            ("beat", "no tick yet" if tick is None else f"{duration(tick)} ago"),
            *(
                ("failing", f"{row['process']} of {row['host']} {row['reason']}")
                for row in document["failing"] or ()
            ),
            ("version", document["version"]),
        ]
    )
    print_table(
        ["agent", "consuming", "busy", "holder", "held", "fence", "queued"],
        [
            (
                name,
                row["consuming"],
                row["semaphore_locked"],
                row["holder"],
                duration(row["held_s"]) if row["holder"] else None,
                row["fence"],
                row["queued"],
            )
            for name, row in document["g2"]["agents"].items()
        ],
    )


def _words(work: dict[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in work.items())


def _spooled(count: int | None) -> str:
    return "unknown" if count is None else str(count)
