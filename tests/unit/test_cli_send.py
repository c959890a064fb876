"""The last words of `fleet send --wait`."""

import click
import pytest

from fleet.cli.send import _show_outcomes
from fleet.cli.waiting import Watched
from fleet.ledger import Accepted


def test_what_completed_unverified_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    deliveries = [
        {"name": "crm", "verification": "ack", "tries": 1, "reason": "HTTP 204"},
        {"name": "log", "verification": "timeout_fallback", "tries": 1, "reason": "no answer"},
    ]
    record = {"agent": "a", "state": "completed", "answer": "hi", "deliveries": deliveries}
    accepted = Accepted(event_id="e", dispatches=(("d", "a"),), duplicate=False)
    with click.Context(click.Command("send")):
        assert _show_outcomes(accepted, [Watched("d", "a", record=record)]) == 0
    said = capsys.readouterr()
    assert said.out == "hi\n"
    assert said.err == "fleet: a: completed, but unverified (log: no answer)\n"
