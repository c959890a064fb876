"""An event is sent again: a new event, and each side names the other."""

from typing import Any

import pytest

from fleet.errors import Forbidden, IdempotencyConflict
from fleet.intake.intake import LOCAL, Sender
from fleet.intake.resend import new_event, read_old
from fleet.ledger import Accepted, parents, views
from fleet.ledger.answers import read_payload
from fleet.ledger.arguments import payload_of
from fleet.ledger.operations import NotPossible, Unknown
from fleet.store import Store, keys
from routing import InvalidEvent, UnknownTarget
from tests.fixtures.chains import MakeBooks, Run
from tests.fixtures.ledger import Books, Twice, settings_for


@pytest.fixture(params=["once", "repeated"])
def single(request: pytest.FixtureRequest, store: Store) -> Books:
    kind = Twice if request.param == "repeated" else Store
    return Books(kind(store.client, 10_000, wakes=True), settings_for("a", "b"))


def resend(
    books: Books,
    dispatch_id: str,
    sender: Sender = LOCAL,
    *,
    new_id: str | None = None,
    **changes: Any,
) -> Accepted:
    raw = new_event(read_old(books.store, dispatch_id), changes)
    return books.intake.accept(raw, sender, new_id=new_id, resent_from=dispatch_id)


def record(books: Books, dispatch_id: str) -> dict[str, Any]:
    found = views.get(books.store, dispatch_id, content=True)
    assert found is not None
    return found


def test_a_completed_one_runs_again_and_both_sides_say_so(single: Books) -> None:
    lease = single.held()
    (old,) = single.accept(text="hello", session="s", priority=7, data={"n": 1}, subject="x")
    single.complete(single.claimed(lease))
    before = record(single, old)
    made = [resend(single, old) for _ in range(2)]
    first, second = (one.dispatches[0][0] for one in made)
    assert record(single, old) == {**before, "resent_as": [second, first]}
    new = record(single, first)
    assert new["resent_from"] == old
    assert new["event"]["data"] == before["event"]["data"] | {"to": ["a"]}
    assert (new["session"], new["priority"], new["event"]["subject"]) == ("s", 7, "x")
    event = parents.get(single.store, made[0].event_id)
    assert event is not None
    assert event["resent_from"] == old
    accepted = single.bus("event_accepted")[1]
    assert accepted.fields["resent_from"] == old
    assert single.claimed(lease).dispatch_id == first


def test_it_may_have_another_text_and_go_to_others(single: Books) -> None:
    old, _ = single.accept(["a", "b"], "hello")
    accepted = resend(single, old, text="bye", to="b", session="t", lane="human")
    ((new, agent),) = accepted.dispatches
    assert agent == "b"
    event = record(single, new)["event"]
    assert (event["data"]["text"], event["data"]["session"]) == ("bye", "t")
    assert event["data"]["priority"] == 9
    assert record(single, old)["event"]["data"]["text"] == "hello"


def test_a_dispatch_of_several_is_sent_to_its_own_agent(single: Books) -> None:
    _, of_b = single.accept(["a", "b"])
    assert [agent for _, agent in resend(single, of_b).dispatches] == ["b"]


def test_the_same_key_twice_is_one_event(single: Books) -> None:
    (old,) = single.accept()
    first = resend(single, old, new_id="k")
    again = resend(single, old, new_id="k")
    assert (again.dispatches, again.duplicate) == (first.dispatches, True)
    with pytest.raises(IdempotencyConflict):
        resend(single, old, new_id="k", text="other")


def test_it_is_refused_in_the_sentences_of_the_door(single: Books) -> None:
    (old,) = single.accept()
    with pytest.raises(UnknownTarget, match="There is no agent, group or chain 'nobody'"):
        resend(single, old, to="nobody")
    with pytest.raises(InvalidEvent, match="The event is larger than"):
        resend(single, old, text="x" * 2**20)
    with pytest.raises(InvalidEvent, match="`text` is empty"):
        resend(single, old, text=" ")

    def may(agent: str) -> None:
        raise Forbidden(f"not {agent}")

    with pytest.raises(Forbidden, match="not a"):
        resend(single, old, Sender(sent_by="token:1", may=may))
    assert "resent_as" not in record(single, old)
    with pytest.raises(Unknown):
        resend(single, "nothing")
    single.store.client.delete(keys.payload(single.record(old)["event"]))
    with pytest.raises(NotPossible, match="no longer kept"):
        resend(single, old)


def test_an_event_of_the_fleets_own_is_sent_again_as_the_callers(single: Books) -> None:
    own = Sender(sent_by="fleet", own_source=True)
    raw = {"source": "agent:a", "to": "b", "text": "x", "hops": 2}
    ((old, _),) = single.intake.accept(raw, own).dispatches
    ((new, _),) = resend(single, old).dispatches
    event = record(single, new)["event"]
    assert (event["source"], event["hops"]) == ("fleet", 2)
    assert "sent_by" not in record(single, new)


def test_nobody_outside_can_claim_to_have_resent(single: Books) -> None:
    (old,) = single.accept()
    raw = {"specversion": "1.0", "type": "x", "resentfrom": old, "data": {"text": "x", "to": "a"}}
    ((new, _),) = single.intake.accept(raw).dispatches
    assert "resent_from" not in record(single, new)
    assert "resent_as" not in record(single, old)


def test_a_stage_begins_its_whole_chain_anew(books: MakeBooks) -> None:
    run = Run(books("archie", "gem"))
    run.answer("archie", "fine")
    stage = run.dispatch(2, "gem")
    accepted = resend(run.books, stage)
    assert accepted.chain == run.books.record(stage)["chain"]
    ((new, agent),) = accepted.dispatches
    assert agent == "archie"
    assert record(run.books, new)["resent_from"] == stage
    assert record(run.books, stage)["resent_as"] == [new]


def test_the_link_is_stored_with_the_event(store: Store) -> None:
    books = Books(store, settings_for("a"))
    (old,) = books.accept()
    ((new, _),) = resend(books, old, new_id="k").dispatches
    event = read_payload(str(store.client.get(keys.payload(books.record(new)["event"]))))
    assert event.resent_from == old
    assert read_payload(payload_of(event)) == event
