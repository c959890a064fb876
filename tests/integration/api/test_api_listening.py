"""Listeners to a turn: their rights, and their lot when the store goes away."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fleet.auth import tokens
from fleet.config.settings import parse
from fleet.ledger import Claim, Ending, ValkeyLedger
from fleet.store import Store
from fleet.turn.live_text import LiveText
from tests.fixtures.listening import Screen, listen
from tests.fixtures.processes import wait_until
from tests.fixtures.valkey import Valkey
from tests.integration.api.conftest import Api, MakeApi, away, release, take_lease


class Turn:
    """A turn of gem's that says what the test says."""

    def __init__(self, store: Store, dispatch_id: str) -> None:
        agent = {"runner": "python", "python": "a:b"}
        self._store = store
        self._ledger = ValkeyLedger(store, parse({"agents": {"gem": agent}}))
        self._token = take_lease(store, ttl_ms=60_000)
        claim = self._ledger.claim(self._token)
        assert claim is not None
        assert claim.dispatch_id == dispatch_id
        self.claim: Claim = claim
        self.speech = LiveText(store, claim)

    def end(self, answer: str) -> None:
        self.speech.close()
        wait_until(lambda: self._committed(answer))
        release(self._store, self._token)

    def _committed(self, answer: str) -> bool:
        return bool(self._ledger.commit(self.claim, Ending(answer=answer)))


@contextmanager
def turn_of_gem(store: Store, api: Api, **headers: str) -> Iterator[tuple[str, Turn]]:
    answer = api.http.post("/events", json={"text": "hello", "to": "gem"}, headers=headers)
    dispatch_id = answer.json()["dispatches"][0]["dispatch_id"]
    turn = Turn(store, dispatch_id)
    yield dispatch_id, turn
    turn.end("done")


def test_a_listener_outlives_the_broker(api: Api, store: Store, valkey: Valkey) -> None:
    screen = Screen()
    with (
        turn_of_gem(store, api) as (dispatch_id, turn),
        listen(api.url, dispatch_id, screen=screen) as listening,
    ):
        turn.speech.publish(1, "before, ")
        listening.next()
        with away(valkey):
            turn.speech.publish(1, "meanwhile ")
        turn.speech.publish(1, "and after")
        while not screen.text.endswith("after"):
            assert listening.next()
        assert screen.text == "before, meanwhile and after"
        turn.end("done")
        assert [data["answer"] for name, data in listening.rest() if name == "outcome"] == ["done"]


def test_bad_cursors_and_other_methods_are_answered(api: Api, store: Store) -> None:
    with turn_of_gem(store, api) as (dispatch_id, turn):
        turn.speech.publish(1, "hello")
        with listen(api.url, dispatch_id, "no\tplace") as listening:
            assert [listening.next(), listening.next()] == [
                ("resync", {"reason": "invalid_last_event_id"}),
                ("token", {"attempt": 1, "step": 1, "offset": 0, "text": "hello"}),
            ]
        path = f"/dispatches/{dispatch_id}/stream"
        assert api.http.head(path).headers["content-type"].startswith("text/event-stream")
        assert api.http.post(path).status_code == 405


def test_who_comes_late_hears_a_long_text_whole(api: Api, store: Store) -> None:
    with turn_of_gem(store, api) as (dispatch_id, turn):
        for number in range(25):
            turn.speech.publish(1, f"{number} " + "x" * 8000)
        screen = Screen()
        with listen(api.url, dispatch_id, screen=screen) as listening:
            while len(screen.text) < 25 * 8000:
                assert listening.next()
        assert screen.gaps == 0


@pytest.fixture
def closed(make_api: MakeApi, valkey: Valkey, store: Store) -> tuple[Api, str]:
    """An API that asks for tokens, and a token for everything."""
    _, root = tokens.create(store, "root", ["admin"])
    return make_api(valkey.url), root


def test_only_who_may_read_the_agent_listens_and_only_so_long(
    closed: tuple[Api, str], store: Store
) -> None:
    api, root = closed
    readers: Any = {
        agent: tokens.create(store, "reader", [f"read:{agent}"]) for agent in ("gem", "archie")
    }
    with turn_of_gem(store, api, Authorization=f"Bearer {root}") as (dispatch_id, turn):
        path = f"/dispatches/{dispatch_id}/stream"
        assert api.http.get(path).status_code == 401
        other = {"Authorization": f"Bearer {readers['archie'][1]}"}
        assert api.http.get(path, headers=other).status_code == 404
        token, text = readers["gem"]
        with listen(api.url, dispatch_id, Authorization=f"Bearer {text}") as listening:
            turn.speech.publish(1, "for your ears")
            listening.next()
            tokens.revoke(store, token.id)
            turn.speech.publish(1, " and not for yours")
            # At once, not with the next sign of life, for which httpx would wait.
            assert listening.rest() == []
        assert listening.screen.text == "for your ears"


def test_a_revoked_listener_of_a_silent_turn_leaves_at_once(
    closed: tuple[Api, str], store: Store
) -> None:
    api, root = closed
    token, text = tokens.create(store, "reader", ["read:archie"])
    event, headers = {"text": "hello", "to": "archie"}, {"Authorization": f"Bearer {root}"}
    (sent,) = api.http.post("/events", json=event, headers=headers).json()["dispatches"]
    with listen(api.url, sent["dispatch_id"], Authorization=f"Bearer {text}") as listening:
        tokens.revoke(store, token.id)
        assert listening.rest() == []
