"""Whose event it is, and whether it is the same one, in the ledger."""

import json
from pathlib import Path
from typing import Any

import pytest

from fleet.auth.tokens import Rights
from fleet.config.settings import parse
from fleet.delivery.delivery_worker import DeliveryWorker
from fleet.errors import Forbidden, IdempotencyConflict
from fleet.intake.intake import FLEET, LOCAL, UPSTREAM, Sender, Submission
from fleet.intake.spool.drainer import Drainer
from fleet.intake.spool.spool import report
from fleet.ledger import Accepted, Ending, ImportedEvent, State, bus, views
from fleet.ledger.answers import read_payload
from fleet.runtime import Runtime
from fleet.store import Store, keys
from fleet.tools.fleet_tools import FleetTools, ToolCaller
from routing import Event, InvalidEvent, decide
from routing.event import event_key
from tests.fixtures.ledger import Books, settings_for
from tests.fixtures.outcomes import end, make
from tests.fixtures.valkey import Valkey

ONE, OTHER = Sender(sent_by="token:1"), Sender(sent_by="token:2")
SENDERS = (LOCAL, ONE, OTHER, UPSTREAM, FLEET)
AGENT = {"runner": "python", "python": "nobody:nothing"}
CHAINED = {"agents": {"a": AGENT, "b": AGENT}, "chains": {"c": {"stages": ["a", "b"]}}}
NOW = "2026-01-01T00:00:00Z"


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, settings_for("a", "b"))


def event(text: str = "x", **fields: Any) -> dict[str, Any]:
    return {"to": "a", "text": text, "id": "1", **fields}


def test_each_sender_has_events_of_its_own(books: Books) -> None:
    first = [books.intake.accept(event(f"by {one.sent_by}"), one) for one in SENDERS]
    assert not any(answer.duplicate for answer in first)
    assert len({answer.dispatches for answer in first}) == len(SENDERS)
    again = [books.intake.accept(event(f"by {one.sent_by}"), one) for one in SENDERS]
    assert all(answer.duplicate for answer in again)
    assert [one.dispatches for one in again] == [one.dispatches for one in first]
    lease = books.held()
    for sender in SENDERS:
        claim = books.claimed(lease)
        assert (claim.text, claim.event.sent_by) == (f"by {sender.sent_by}", sender.sent_by)
        books.complete(claim)


@pytest.mark.parametrize("sender", [LOCAL, ONE, UPSTREAM])
def test_other_content_is_refused_also_when_the_first_has_ended(
    sender: Sender, books: Books
) -> None:
    accepted = books.intake.accept(event(), sender)
    for _ in range(2):
        with pytest.raises(IdempotencyConflict, match="other content"):
            books.intake.accept(event("other"), sender)
        batch = [Submission(one, sender) for one in (event(), event("other"), event(id="2"))]
        same, other, new = books.intake.accept_batch(batch)
        assert same == books.intake.accept(event(), sender)
        assert isinstance(other, IdempotencyConflict)
        assert books.state(getattr(new, "dispatches")[0][0])  # noqa: B009
        if books.state(accepted.dispatches[0][0]) == State.QUEUED:
            books.complete(books.claimed(books.held()))


@pytest.mark.parametrize("sender", [LOCAL, ONE, UPSTREAM])
@pytest.mark.parametrize("to", ["a", "chain:c"])
def test_what_an_earlier_version_accepted_is_known(store: Store, sender: Sender, to: str) -> None:
    """It kept an event by source and id alone, and nothing of its content."""
    books = Books(store, parse(CHAINED))
    before = books.intake.accept(event(to=to))
    store.client.hdel(keys.event(keys.event_digest(event_key("fleet", "1"))), "content")
    again = books.intake.accept(event("other", to=to), sender)
    assert again.duplicate
    assert (again.dispatches, again.chain_id) == (before.dispatches, before.chain_id)


def test_a_chain_of_a_token_goes_through_and_meets_no_other(store: Store) -> None:
    books = Books(store, parse(CHAINED))
    answers = [books.intake.accept(event(to="chain:c"), one) for one in (LOCAL, ONE)]
    assert answers[0].chain_id != answers[1].chain_id
    for agent in ("a", "a", "b", "b"):
        lease = books.held(agent)
        books.complete(books.claimed(lease))
        lease.release()
    for answer in answers:
        seen = views.chain(store, str(answer.chain_id))
        assert seen
        assert seen["state"] == "completed"
        key = event_key("fleet", "1", "token:1" if answer is answers[1] else "")
        assert seen["dispatches"][1] == (keys.stage_dispatch_id(key, "c", 2, 1, "b"), "b")


def test_an_outcome_is_told_although_its_name_was_taken(store: Store) -> None:
    """Also by an event that was let in before sources were reserved."""
    books = make(store, receiver={"agent": "b"})
    (dispatch_id,) = books.accept("a")
    end(books, Ending(answer="the answer"))
    forged = event("forged", source="agent:a", id=f"{dispatch_id}.1.crm", to="b")
    for sender in (LOCAL, ONE, UPSTREAM):
        with pytest.raises(InvalidEvent, match="must not begin with"):
            books.intake.accept(forged, sender)
    let_in = Event.parse(forged, new_id="", now=NOW)
    books.ledger.accept_many([(let_in, decide(let_in, books.settings.rules()))])
    DeliveryWorker(store, books.settings, lambda: books.intake).deliver(dispatch_id)
    lease = books.held("b")
    texts = []
    for _ in range(2):
        claim = books.claimed(lease)
        texts.append(claim.text)
        books.complete(claim)
        told = books.record(dispatch_id).get("verification")
        assert told == ("ack" if claim.text == "the answer" else None)
    assert texts == ["forged", "the answer"]


def test_what_an_agent_sent_is_known_by_its_sender_and_not_by_its_source(
    store: Store, valkey: Valkey, tmp_path: Path
) -> None:
    """An upstream host may be called `agent`, and older events had any source."""
    at = {"data_dir": str(tmp_path), "broker_url": valkey.url}
    settings = parse({"fleet": at, "agents": {"a": AGENT, "b": AGENT}})
    runtime = Runtime(settings)
    caller = ToolCaller(
        name="a",
        source="agent:a",
        sent_by=FLEET.sent_by,
        counted_as="a",
        per_minute=10,
        may_send=lambda _: None,
        rights=Rights(frozenset({"read:*"})),
        foreign_answers=False,
    )
    tools, found = FleetTools(runtime, caller), {}
    for sender in (LOCAL, ONE, UPSTREAM, FLEET):
        one = kept(Books(store, settings), event(source="agent:a", to="b"), sender)
        (found[sender.sent_by],) = runtime.ledger.accept_many([(one.event, one.plan)])
    for sent_by, answer in found.items():
        assert isinstance(answer, Accepted)
        (dispatch_id, _) = answer.dispatches[0]
        if sent_by == FLEET.sent_by:
            assert tools.queue_cancel(dispatch_id)["state"] == State.CANCELLED
        else:
            with pytest.raises(Forbidden, match="not dispatched by you"):
                tools.queue_cancel(dispatch_id)


def kept(books: Books, raw: dict[str, Any], sender: Sender) -> ImportedEvent:
    found = Event.parse(raw, new_id="", now=NOW, sent_by=sender.sent_by)
    return ImportedEvent(event=found, plan=decide(found, books.settings.rules()), age_s=1.0)


def test_a_conflict_of_the_spool_stops_no_other_event(books: Books) -> None:
    (first,) = books.accept(text="x", id="1")
    batch = [kept(books, event(id=id_), LOCAL) for id_ in ("0", "2")]
    batch.insert(1, kept(books, event("other"), LOCAL))
    for _ in range(2):
        with pytest.raises(IdempotencyConflict):
            books.ledger.import_spooled(batch)
    payload = str(books.store.client.get(keys.payload(books.record(first)["event"])))
    assert read_payload(payload).text == "x"
    ids = {row["event_id"] for row in views.find(books.store).dispatches}
    assert ids == {"0", "1", "2"}


def test_an_offline_run_under_a_key_of_the_ledger_is_quarantined_and_changes_nothing(
    store: Store, tmp_path: Path
) -> None:
    settings = parse({"fleet": {"data_dir": str(tmp_path)}, "agents": {"a": AGENT}})
    books, runtime = Books(store, settings), Runtime(settings)
    (first,) = books.accept(text="x", id="1")
    runtime.breaker.record_failure("test", refusal="The password is wrong.")
    one = kept(books, event("other"), LOCAL)
    runtime.spool.store([(one.event, one.plan)])
    claim = runtime.spool_ledger.claim("a", 1, "host:1")
    assert claim is not None
    runtime.spool_ledger.commit(claim, Ending(answer="to the other"))
    (tmp_path / "breaker").unlink()  # closed again
    later = Runtime(settings)
    drainer = Drainer(
        *(later.breaker, later.spool),
        ledger=lambda: books.ledger,
        store=lambda: store,
    )
    for _ in range(2):
        drainer.work()
        assert books.state(first) == State.QUEUED
        assert runtime.spool.size().events == 0
        assert len(runtime.spool.quarantined()) == 1
    ((_, state),) = runtime.spool.quarantined()
    (entry,) = state.ordered()
    assert "other content" in entry.reason
    # Its sender was told that it is accepted.
    (told,) = [entry.fields for entry in bus.tail(store, 100) if entry.type == "delivery_dropped"]
    assert (told["name"], told["sender"], told["agent"]) == ("spool", "fleet", "a")
    assert told["reason"].startswith("1: ")
    assert "other content" in told["reason"]
    # With what ran of it.
    (run,) = state.runs.values()
    assert report(run).ending == Ending(answer="to the other")


def test_the_payload_names_the_sender_and_nobody_else_can(books: Books) -> None:
    forged = {"specversion": "1.0", "id": "1", "sentby": "fleet", "sent_by": "fleet"}
    answer = books.intake.accept({**forged, "data": event("x", sentby="fleet")}, ONE)
    digest = books.record(answer.dispatches[0][0])["event"]
    payload = json.loads(str(books.store.client.get(keys.payload(digest))))
    assert (payload["sentby"], payload["data"]["sentby"]) == ("token:1", "fleet")
    assert books.claimed(books.held()).event.sent_by == "token:1"
