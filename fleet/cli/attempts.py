"""Failed attempts of what `fleet send --wait` waits for, and the way out of a long wait."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime

from fleet.cli.output import duration, note
from fleet.cli.waiting import Watched
from fleet.ledger.bus import BusEvent

#: After so long a waiting person is told how to leave.
LONG_WAIT_S = 60.0


def noted(
    events: Iterator[BusEvent | None], watched: Sequence[Watched], long_wait_s: float = LONG_WAIT_S
) -> Iterator[BusEvent | None]:
    """Pass `events` on, and note failed attempts; after `long_wait_s`, and at Ctrl-C, the way out.

    After the first failed attempt the command that shows more of it is named.
    `watched` may grow.
    """
    until, is_first = time.monotonic() + long_wait_s, True
    try:
        for event in events:
            if event is not None and is_failed_attempt(event):
                note(f"fleet: {failed_attempt(event)}")
                if is_first:
                    command = (
                        f"fleet queue inspect {event.fields.get('dispatch_id')} --show-content"
                    )
                    note(f"fleet: `{command}` shows its traceback, if it has one")
                is_first = False
            if time.monotonic() > until:
                until = float("inf")
                note(f"fleet: still waiting; Ctrl-C leaves it running, {_where(watched)}")
            yield event
    except KeyboardInterrupt:
        note(f"fleet: left running, {_where(watched)}")
        raise


def is_failed_attempt(event: BusEvent) -> bool:
    """True for an attempt that failed, and that another one follows."""
    return event.type == "dispatch_failed" and bool(event.fields.get("will_retry"))


def failed_attempt(event: BusEvent) -> str:
    """The failure of an attempt, and the wait before the next one, in words."""
    fields = event.fields
    why = ": ".join(str(fields[name]) for name in ("stage", "reason") if fields.get(name))
    wait_s = float(fields["retry_at"]) - datetime.fromisoformat(event.time).timestamp()
    return (
        f"{fields.get('agent')}: attempt {fields.get('attempt')} failed ({why}); "
        f"the next is due in {duration(max(0.0, wait_s))}"
    )


def _where(watched: Sequence[Watched]) -> str:
    waiting = [one.dispatch_id for one in watched if not one.ended] or ["ID"]
    more = f" (and {len(waiting) - 1} more)" if len(waiting) > 1 else ""
    return f"and `fleet queue inspect {waiting[0]}` shows it{more}"
