"""Notes for a person who waits for an outcome."""

from collections.abc import Iterator

import pytest

from fleet.cli.attempts import noted
from fleet.cli.waiting import Watched
from fleet.ledger.bus import BusEvent, parse_entry

FAILED = {
    "type": "dispatch_failed",
    "dispatch_id": "d-1",
    "agent": "archie",
    "attempt": "1",
    "stage": "tool",
    "reason": "the agent's code raised ValueError",
    "will_retry": "true",
}
START_MS = 1_800_000_000_000


def failed(**more: str) -> BusEvent:
    retry_at = f"{START_MS / 1000 + 30:.3f}"
    return parse_entry(f"{START_MS}-0", {**FAILED, "retry_at": retry_at, **more})


def test_a_failed_attempt_says_why_and_when_the_next_is_due(
    capsys: pytest.CaptureFixture[str],
) -> None:
    events = [failed(), None, failed(attempt="2"), failed(will_retry="false")]
    assert list(noted(iter(events), [Watched("d-1", "archie")])) == events
    assert capsys.readouterr().err == (
        "fleet: archie: attempt 1 failed (tool: the agent's code raised ValueError); "
        "the next is due in 30.0s\n"
        "fleet: `fleet queue inspect d-1 --show-content` shows its traceback, if it has one\n"
        "fleet: archie: attempt 2 failed (tool: the agent's code raised ValueError); "
        "the next is due in 30.0s\n"
    )


def test_a_long_wait_says_once_how_to_leave_it(capsys: pytest.CaptureFixture[str]) -> None:
    watched = [Watched("d-1", "archie", record={}), Watched("d-2", "gem"), Watched("d-3", "mini")]
    list(noted(iter([None, None]), watched, long_wait_s=-1.0))
    assert capsys.readouterr().err == (
        "fleet: still waiting; Ctrl-C leaves it running, and `fleet queue inspect d-2` shows it "
        "(and 1 more)\n"
    )


def test_who_leaves_is_told_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> Iterator[BusEvent | None]:
        yield None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(noted(interrupted(), [Watched("d-2", "gem")]))
    assert "left running, and `fleet queue inspect d-2` shows it" in capsys.readouterr().err
