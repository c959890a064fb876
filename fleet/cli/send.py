"""`fleet send`: an event goes in; with `--wait`, its outcomes come out."""

import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from fleet.cli.attempts import is_failed_attempt, noted
from fleet.cli.backend import backend
from fleet.cli.backend.protocol import Record
from fleet.cli.base import Command, wants_json
from fleet.cli.event_input import read_event
from fleet.cli.output import event_line, note, print_json, print_line, printable
from fleet.cli.waiting import Watched, WatchedChain, watch
from fleet.errors import BrokerUnavailable
from fleet.ledger import Accepted, State
from fleet.ledger.bus import BusEvent


def waiting(function: Callable[..., int]) -> Callable[..., int]:
    """Add the options of a command that can wait for what it sends: `wait` and `timeout`."""
    timeout = click.option(
        "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Longest wait."
    )
    wait = click.option(
        "--wait", is_flag=True, help="Show progress, then the outcomes; exit 1 on a failure."
    )
    return wait(timeout(function))


@click.command(cls=Command)
@click.argument("text", required=False)
@click.option(
    "--to", multiple=True, metavar="TARGET", help="Agent, @group, all or chain:NAME; repeatable."
)
@click.option("--session", metavar="S", help="Events of one session run in their order.")
@waiting
@click.option("--idempotency-key", metavar="K", help="The same key twice is the same event.")
@click.option("--priority", type=click.IntRange(0, 9), metavar="0-9", help="9 goes first.")
@click.option("--lane", metavar="NAME", help="A priority's name; human, unless --event is given.")
@click.option("--event", "file", metavar="FILE|-", help="CloudEvents JSON instead of TEXT.")
def send(
    text: str | None,
    to: tuple[str, ...],
    session: str | None,
    wait: bool,
    timeout: float | None,
    idempotency_key: str | None,
    priority: int | None,
    lane: str | None,
    file: str | None,
) -> int:
    """Send an event to one or more agents."""
    if (text is None) == (file is None):
        raise click.UsageError("Give the text, or --event FILE.")
    check_waiting(wait, timeout)
    if file is None and lane is None and priority is None:
        lane = "human"
    options = {"to": list(to) or None, "session": session, "priority": priority, "lane": lane}
    raw = read_event(text, file, {**options, "id": idempotency_key})
    # Read before the send, so every entry about the event comes after it.
    after = backend().newest() if wait else None
    accepted = _accept(raw)
    if after is None:
        show_accepted(accepted)
        return 0
    return show_outcomes(accepted, after, timeout)


def check_waiting(wait: bool, timeout: float | None) -> None:
    """Raise UsageError for a limit of a wait without a wait."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait.")


def show_outcomes(
    accepted: Accepted, after: str, timeout_s: float | None, also: Record | None = None
) -> int:
    """Wait for the outcomes of an event and show them; returns the exit code.

    `after` is the bus's newest id before the event was sent; JSON has `also` in it.
    """
    # In an outage it answers at once, and the spool is asked instead.
    connect = backend().connect
    sent = {**accepted.to_wire(), **(also or {})}
    watched = [Watched(dispatch_id, agent) for dispatch_id, agent in accepted.dispatches]
    if accepted.chain:
        chain = WatchedChain(accepted.chain, str(accepted.chain_id))
        _follow(watch(connect, watched, after, timeout_s, chain), watched)
        return _show_chain(sent, chain, watched)
    try:
        _follow(watch(connect, watched, after, timeout_s, elsewhere=backend().elsewhere), watched)
    except BrokerUnavailable as error:
        raise BrokerUnavailable(f"{error} The event was accepted and goes on.") from error
    return _show_outcomes(sent, watched)


def _accept(raw: Any) -> Accepted:
    if isinstance(raw, dict):
        # Known before it is sent, so that a send whose answer was lost can be repeated.
        raw.setdefault("id", str(uuid.uuid4()))
    try:
        return backend().send(raw)
    except BrokerUnavailable as error:
        again = f" Send it again with --idempotency-key {raw['id']}: it will not run twice."
        raise BrokerUnavailable(f"{error}{again}") from error


def show_accepted(accepted: Accepted, also: Record | None = None) -> None:
    """Print the ids that an accepted event has got; JSON has `also` in it."""
    if wants_json():
        print_json({**accepted.to_wire(), **(also or {})})
        return
    print_line(f"{'accepted before' if accepted.duplicate else 'accepted'} {accepted.event_id}")
    for dispatch_id, agent in accepted.dispatches:
        print_line(f"  {agent:12} {dispatch_id}")


def _follow(events: Iterator[BusEvent | None], watched: list[Watched]) -> None:
    """Progress on standard error: redrawn on a terminal, else a line for each event."""
    if wants_json():
        for _ in events:
            pass
        return
    events = noted(events, watched)
    if sys.stderr.isatty():
        from fleet.cli.progress import follow_live

        follow_live(events, watched, backend().live_texts(watched))
    else:
        for event in events:
            if event is not None and not is_failed_attempt(event):
                note(event_line(event))


#: A group's member that is no longer needed is cancelled.
_FINE_IN_A_CHAIN = frozenset({State.COMPLETED, State.CANCELLED})


def _show_chain(sent: Record, chain: WatchedChain, watched: Iterable[Watched]) -> int:
    """Show each stage's answer, in order; returns the exit code of the chain."""
    records = [one.record for one in watched if one.record is not None]
    if wants_json():
        ended = {"chain_state": chain.outcome, "chain_reason": chain.reason}
        print_json({**sent, **ended, "dispatches": [_brief(row) for row in records]})
    else:
        # A person who just approved said nothing.
        _print_answers((row for row in records if row.get("answer")), named=True)
    _note_failed(row for row in records if row["state"] not in _FINE_IN_A_CHAIN)
    _note_doubtful(records)
    if chain.outcome == State.COMPLETED:
        return 0
    note(f"fleet: chain {chain.name}: {chain.outcome} ({chain.reason})")
    return 1


def _show_outcomes(sent: Record, watched: Iterable[Watched]) -> int:
    records = [one.record or {} for one in watched]
    if wants_json():
        outcomes = dict(Counter(record["state"] for record in records))
        brief = [_brief(row) for row in records]
        print_json({**sent, "dispatches": brief, "outcomes": outcomes})
    else:
        _print_answers(records, named=len(records) > 1)
    bad = [record for record in records if record["state"] != State.COMPLETED]
    if bad and len(records) > 1:
        note(f"fleet: {len(records) - len(bad)} of {len(records)} completed")
    _note_failed(bad)
    _note_doubtful(records)
    return int(bool(bad))


def _brief(record: dict[str, Any]) -> dict[str, Any]:
    """The record without event and steps, which `fleet queue inspect --show-content` has."""
    return {k: v for k, v in record.items() if k not in ("event", "steps", "earlier")}


def _print_answers(records: Iterable[dict[str, Any]], *, named: bool) -> None:
    for record in records:
        if record["state"] == State.COMPLETED:
            heading = f"{record['agent']}: " if named else ""
            print_line(f"{heading}{printable(record.get('answer') or '')}")


def _note_failed(records: Iterable[dict[str, Any]]) -> None:
    for record in records:
        why = ": ".join(str(record[name]) for name in ("stage", "error") if name in record)
        note(f"fleet: {record['agent']}: {record['state']}{f' ({printable(why)})' if why else ''}")


#: Reasons of a cut answer, for people.
_CUT = {"length": "the model reached its limit of tokens"}


def _note_doubtful(records: Iterable[dict[str, Any]]) -> None:
    """Note the completed dispatches with a cut answer, or that a receiver never confirmed."""
    for record in records:
        if record["state"] == State.COMPLETED and "cut" in record:
            why = _CUT.get(record["cut"], "the model ended it for an unknown reason")
            note(f"fleet: {record['agent']}: the answer may be cut: {why}")
        for one in record.get("deliveries", ()):
            if record["state"] == State.COMPLETED and one["verification"] == "timeout_fallback":
                why = printable(f"{one['name']}: {one['reason']}")
                note(f"fleet: {record['agent']}: completed, but unverified ({why})")
