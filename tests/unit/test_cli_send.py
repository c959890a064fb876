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
        assert _show_outcomes(accepted.to_wire(), [Watched("d", "a", record=record)]) == 0
    said = capsys.readouterr()
    assert said.out == "hi\n"
    assert said.err == "fleet: a: completed, but unverified (log: no answer)\n"


@pytest.mark.parametrize(
    ("cut", "why"),
    [
        ("length", "the model reached its limit of tokens"),
        ("unknown", "the model ended it for an unknown reason"),
    ],
)
def test_an_answer_that_was_cut_is_told(
    cut: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"agent": "a", "state": "completed", "answer": "hal", "cut": cut}
    accepted = Accepted(event_id="e", dispatches=(("d", "a"),), duplicate=False)
    with click.Context(click.Command("send")):
        assert _show_outcomes(accepted.to_wire(), [Watched("d", "a", record=record)]) == 0
    assert capsys.readouterr().err == f"fleet: a: the answer may be cut: {why}\n"
