"""Chains in the ledger: each move is one of a dispatch, and none can be lost or repeated."""

import pytest

from fleet.errors import Refused
from fleet.ledger import State, operations, parents, views
from fleet.ledger.operations import NotPossible
from fleet.store import Store, keys
from tests.fixtures.chains import MakeBooks, Run, settings_with
from tests.fixtures.ledger import FOR_GOOD, Books


class TestStages:
    def test_one_after_the_other(self, books: MakeBooks) -> None:
        run = Run(books("archie", "gem"))
        assert (run.state(1, "archie"), run.state(2, "gem")) == ("queued", "")
        run.answer("archie", "a plan")
        assert (run.state(1, "archie"), run.state(2, "gem")) == ("completed", "queued")
        assert run.chain["state"] == "running"
        run.answer("gem", "APPROVE")
        assert run.ended == ("completed", "every stage is through")
        told = [entry.type for entry in run.books.bus() if entry.type != "agent_online"]
        assert told == [
            "event_accepted",
            *("dispatch_queued", "dispatch_started", "dispatch_completed") * 2,
            "chain_ended",
        ]

    def test_a_stage_sees_the_event_and_what_earlier_ones_answered(self, books: MakeBooks) -> None:
        run = Run(books("archie", "@reviewers", "kim"))
        first = run.answer("archie", "the plan: « ☃ »\n\0x")
        assert first.chain_position is not None
        assert (
            first.chain_position.stage,
            first.chain_position.stages,
            first.chain_position.earlier,
        ) == (1, 3, ())
        run.answer("gem", "Approve: good")
        second = run.answer("mini", "fine")
        assert second.chain_position is not None
        # Not what another member of the same group said.
        assert [(one.agent, one.answer) for one in second.chain_position.earlier] == [
            ("archie", "the plan: « ☃ »\n\0x")
        ]
        third = run.claim("kim")
        if third.chain_position is not None and third.chain_position.stage == 2:
            third = run.claim("kim")
        assert third.event.text == "ship it"
        assert third.chain_position is not None
        assert [(one.stage_name, one.agent, one.verdict) for one in third.chain_position.earlier][
            :3
        ] == [
            ("archie", "archie", "approve"),
            ("@reviewers", "gem", "approve"),
            ("@reviewers", "mini", "approve"),
        ]

    def test_the_sender_is_told_the_first_stage_however_often(self, books: MakeBooks) -> None:
        made = books("archie", "gem")
        run = Run(made, id="1")
        run.answer("archie", "x")
        again = made.intake.accept({"id": "1", "to": "chain:release", "text": "ship it"})
        assert again.duplicate
        assert again.dispatches == ((run.dispatch(1, "archie"), "archie"),)
        assert (again.chain, again.chain_id) == ("release", run.id)

    def test_a_full_first_stage_refuses_and_a_full_later_one_does_not(
        self, books: MakeBooks
    ) -> None:
        made = books("archie", "gem")
        run = Run(made)
        for _ in range(2):
            made.accept("gem")
        run.answer("archie", "x")
        assert run.state(2, "gem") == "queued"
        for _ in range(2):
            made.accept("archie")
        with pytest.raises(Refused, match="archie has 2 events waiting"):
            Run(made)

    def test_a_later_stage_has_the_events_own_place(self, books: MakeBooks) -> None:
        made = books("archie", "gem")
        run = Run(made)
        made.accept("gem")
        run.answer("archie", "x")
        assert run.claim("gem").dispatch_id == run.dispatch(2, "gem")

    def test_the_event_lists_all_stages_and_ends_with_the_chain(self, books: MakeBooks) -> None:
        run = Run(books("archie", "gem"), id="1")
        run.answer("archie", "x")
        event = parents.get(run.books.store, "1")
        assert event is not None
        assert event["state"] == "open"
        run.answer("gem", "x")
        event = parents.get(run.books.store, "1")
        assert event is not None
        assert event["state"] == "ended"
        assert [(one["agent"], one["state"]) for one in event["members"]] == [
            ("archie", "completed"),
            ("gem", "completed"),
        ]

    def test_the_view_of_a_stage(self, books: MakeBooks) -> None:
        run = Run(books("archie", "human:ops"))
        run.answer("archie", "a secret plan")
        parked = views.get(run.books.store, run.dispatch(2, "human:ops"))
        assert parked is not None
        assert parked["waiting_for"] == "a person: ops is asked to approve or reject it"
        assert (parked["chain"], parked["chain_stage"], parked["chain_stages"]) == ("release", 2, 2)
        assert (parked["chain_state"], parked["round"]) == ("running", 1)
        assert parked["earlier"][0]["answer"] != "a secret plan"
        shown = views.get(run.books.store, run.dispatch(2, "human:ops"), content=True)
        assert shown is not None
        assert shown["earlier"][0]["answer"] == "a secret plan"
        (row,) = views.find(run.books.store, states=["parked"]).dispatches
        assert (row["person"], row["waiting_for"]) == ("ops", parked["waiting_for"])
        run.decide(2, "ops")

    def test_no_content_on_the_bus(self, books: MakeBooks) -> None:
        run = Run(books("archie", "gem"), text="a secret")
        run.answer("archie", "REVISE: a secret")
        run.answer("archie", "REJECT: a secret")
        assert run.ended == ("rejected", "stage 1 (archie) rejects")
        assert not [entry for entry in run.books.bus() if "secret" in str(entry.fields)]


def test_where_the_broker_is_elsewhere_each_stage_is_notified(store: Store) -> None:
    published: list[tuple[str, str]] = []
    away = Store(store.client, 10_000, wakes=False)
    settings = settings_with("human:ops", "archie", "@reviewers")
    run = Run(Books(away, settings, lambda *wakeup: published.append(wakeup)))
    # A person has no queue.
    assert published == []
    run.decide(1, "ops")
    assert published == [("archie", run.dispatch(2, "archie"))]
    run.answer("archie", "x")
    assert published[1:] == [(agent, run.dispatch(3, agent)) for agent in ("gem", "mini", "kim")]


class TestRevisions:
    def test_back_to_the_stage_before_passing_over_people(self, books: MakeBooks) -> None:
        run = Run(books("archie", "human:ops", "gem"))
        run.answer("archie", "first draft")
        run.decide(2, "ops")
        run.answer("gem", "REVISE: shorter")
        again = run.claim("archie")
        assert again.dispatch_id == run.dispatch(1, "archie", 2)
        assert again.chain_position is not None
        assert [(one.agent, one.round, one.answer) for one in again.chain_position.earlier] == [
            ("archie", 1, "first draft"),
            ("human:ops", 1, ""),
            ("gem", 1, "REVISE: shorter"),
        ]
        run.books.complete(again, "second draft")
        run.decide(2, "ops", round_=2)
        run.answer("gem", "approve")
        assert run.ended == ("completed", "every stage is through")

    def test_at_most_so_often(self, books: MakeBooks) -> None:
        run = Run(books("archie", "gem", max_revisions=2))
        for _ in range(3):
            run.answer("archie", "draft")
            run.answer("gem", "revise")
        assert run.ended == (
            "rejected",
            "stage 2 (gem) asks for a revision, and there were 2 already",
        )

    def test_never(self, books: MakeBooks) -> None:
        run = Run(books("archie", max_revisions=0))
        run.answer("archie", "revise")
        assert run.ended is not None
        assert run.ended[0] == "rejected"

    @pytest.mark.parametrize("answer", ["", " \n"])
    def test_an_empty_answer_never_approves(self, books: MakeBooks, answer: str) -> None:
        run = Run(books("archie", "gem", on_silence="approve"))
        run.answer("archie", answer)
        assert run.ended == ("rejected", "stage 1 (archie) rejects")

    def test_silence_may_reject(self, books: MakeBooks) -> None:
        run = Run(books("archie", on_silence="reject"))
        run.answer("archie", "hm")
        assert run.ended == ("rejected", "stage 1 (archie) rejects")


class TestQuorum:
    def test_more_than_half_is_enough_and_the_rest_is_cancelled(self, books: MakeBooks) -> None:
        run = Run(books("@reviewers", "archie"))
        run.answer("gem", "approve")
        assert run.state(2, "archie") == ""
        run.answer("mini", "approve")
        assert (run.state(2, "archie"), run.state(1, "kim")) == ("queued", "cancelled")
        run.answer("archie", "done")
        assert run.ended == ("completed", "every stage is through")

    def test_one_that_runs_is_asked_to_stop_and_counts_no_more(self, books: MakeBooks) -> None:
        run = Run(books("@reviewers", "archie"))
        late = run.claim("kim")
        run.answer("gem", "approve")
        run.answer("mini", "approve")
        assert run.books.record(late.dispatch_id)["cancel"] == "its stage was decided without it"
        assert run.state(2, "archie") == "queued"
        run.books.complete(late, "REJECT")
        assert run.chain["state"] == "running"
        run.answer("archie", "x")
        assert run.ended == ("completed", "every stage is through")

    @pytest.mark.parametrize(
        ("votes", "outcome"),
        [
            (("approve", "reject", "approve"), "completed"),
            (("reject", "reject"), "rejected"),
            (("approve", "revise", "reject"), "rejected"),
            (("revise", "revise"), "revised"),
            (("approve", "revise", "revise"), "revised"),
        ],
    )
    def test_a_vote(self, books: MakeBooks, votes: tuple[str, ...], outcome: str) -> None:
        run = Run(books("archie", "@reviewers"))
        run.answer("archie", "x")
        for agent, vote in zip(("gem", "mini", "kim"), votes, strict=False):
            run.answer(agent, vote)
        if outcome == "revised":
            assert run.state(1, "archie", 2) == "queued"
            operations.cancel(
                *(run.books.ledger, run.books.settings, run.dispatch(1, "archie", 2), "enough")
            )
        else:
            assert run.ended is not None
            assert run.ended[0] == outcome

    def test_all_may_be_needed(self, books: MakeBooks) -> None:
        run = Run(books({"agent": "@reviewers", "quorum": 3}))
        run.answer("gem", "approve")
        run.answer("mini", "approve")
        assert run.chain["state"] == "running"
        run.answer("kim", "approve")
        assert run.ended is not None

    def test_a_member_that_fails_is_no_approval_and_can_be_replayed(self, books: MakeBooks) -> None:
        run = Run(books({"agent": "@reviewers", "quorum": 3}))
        run.books.fail(run.claim("gem"), FOR_GOOD)
        run.answer("mini", "approve")
        assert run.chain["state"] == "running"
        run.answer("kim", "approve")
        assert run.chain["state"] == "dead"
        replayed = operations.replay(run.books.ledger, run.books.settings, run.dispatch(1, "gem"))
        assert replayed is State.QUEUED
        run.answer("gem", "approve")
        assert run.chain["state"] == "completed"


class TestFailure:
    def test_a_failed_stage_stops_the_chain_and_its_replay_continues_it(
        self, books: MakeBooks
    ) -> None:
        run = Run(books("archie", "gem"))
        run.books.fail(run.claim("archie"), FOR_GOOD)
        assert run.ended == ("dead", "stage 1 (archie) failed")
        operations.replay(run.books.ledger, run.books.settings, run.dispatch(1, "archie"))
        assert run.chain["state"] == "running"
        assert run.books.store.client.ttl(keys.chain(run.id)) == -1
        run.answer("archie", "x")
        run.answer("gem", "x")
        assert run.chain["state"] == "completed"

    def test_it_may_be_skipped_and_then_it_is_too_late_for_a_replay(self, books: MakeBooks) -> None:
        run = Run(books("archie", "gem", on_failure="skip"))
        run.books.fail(run.claim("archie"), FOR_GOOD)
        with pytest.raises(NotPossible, match="went on, or ended, without it"):
            operations.replay(run.books.ledger, run.books.settings, run.dispatch(1, "archie"))
        claim = run.answer("gem", "x")
        assert claim.chain_position is not None
        assert [(one.state, one.verdict) for one in claim.chain_position.earlier] == [
            ("dead", None)
        ]
        assert run.ended == ("completed", "every stage is through")

    def test_skipping_all_is_no_success(self, books: MakeBooks) -> None:
        run = Run(books("archie", "gem", on_failure="skip"))
        run.books.fail(run.claim("archie"), FOR_GOOD)
        run.books.fail(run.claim("gem"), FOR_GOOD)
        assert run.ended == ("dead", "every stage failed")

    def test_cancelling_a_stage_cancels_the_chain(self, books: MakeBooks) -> None:
        run = Run(books("archie", "gem", on_failure="skip"))
        operations.cancel(run.books.ledger, run.books.settings, run.dispatch(1, "archie"), "no")
        assert run.ended == ("cancelled", "stage 1 (archie) was cancelled")
        assert run.state(2, "gem") == ""


class TestSessions:
    def test_a_chain_holds_its_place_until_it_ends(self, books: MakeBooks) -> None:
        made = books("archie", "human:ops", "gem")
        run = Run(made, session="s")
        (later,) = made.accept("gem", session="s")
        (other,) = made.accept("gem", session="t")
        run.answer("archie", "x")
        # Parked for days: its session waits with it, and nothing else does.
        claim = run.claim("gem")
        assert claim.dispatch_id == other
        made.complete(claim)
        assert made.claim(run.leases["gem"]) is None
        run.decide(2, "ops")
        assert run.answer("gem", "x").dispatch_id == run.dispatch(3, "gem")
        assert run.ended is not None
        assert run.claim("gem").dispatch_id == later

    def test_a_group_in_a_session_votes_one_at_a_time(self, books: MakeBooks) -> None:
        run = Run(books({"agent": "@reviewers", "quorum": 3}, "archie"), session="s")
        for _ in range(3):
            free = [
                claim
                for name in ("gem", "mini", "kim")
                if (claim := run.books.claim(run.leases[name]))
            ]
            assert len(free) == 1
            run.books.complete(free[0], "approve")
        run.answer("archie", "x")
        assert run.ended is not None
