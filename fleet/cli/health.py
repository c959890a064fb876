"""`fleet health`: the health document."""

from typing import Any

import click

from fleet import context
from fleet import health as live
from fleet.cli.base import Command, wants_json
from fleet.cli.output import duration, note, print_json, print_pairs, print_table
from fleet.errors import BrokerUnavailable
from fleet.settings import load
from fleet.version import VERSION


@click.command(cls=Command)
def health() -> int:
    """Print the health document; exit 1 when down."""
    settings = load()
    try:
        document = live.document(context.store(), settings)
    except BrokerUnavailable as error:
        document = {"status": "down", "version": VERSION, "reason": str(error)}
    if wants_json():
        print_json(document)
    elif document["status"] == "down":
        note(f"fleet: down: {document['reason']}")
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
            ("retrying", counts["retrying"]),
            ("dead", counts["dead"]),
            ("beat", "no tick yet" if tick is None else f"{duration(tick)} ago"),
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
