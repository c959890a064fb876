"""Scopes, the form of a token, and the bucket that bounds its rate."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.api.auth import rate_limit
from fleet.api.auth.rate_limit import Bucket
from fleet.auth.tokens import ANYTHING, Rights, Token, TokenError, checked_scopes, match
from fleet.errors import Forbidden

SECRET = "s" * 43
TOKEN = Token(
    id="0123456789ab",
    name="n",
    scopes=("operate",),
    digest=hashlib.sha256(SECRET.encode()).hexdigest(),
)
TEXT = f"fleet_{TOKEN.id}_{SECRET}"


@pytest.mark.parametrize(
    ("scopes", "sends", "reads", "operates"),
    [
        (("send:gem",), {"gem"}, set(), False),
        (("send:*",), {"gem", "mini"}, set(), False),
        (("read:gem", "operate"), set(), {"gem"}, True),
        (("admin",), {"gem", "mini"}, {"gem", "mini"}, True),
        (("read:gemini",), set(), set(), False),
    ],
)
def test_what_a_scope_allows(
    scopes: tuple[str, ...], sends: set[str], reads: set[str], operates: bool
) -> None:
    rights = Rights(frozenset(scopes))
    assert {agent for agent in ("gem", "mini") if rights.sends(agent)} == sends
    assert rights.readable(["gem", "mini"]) == reads
    assert rights.operates is operates
    assert rights.reads_all is ("admin" in scopes)


def test_what_is_missing_is_named() -> None:
    nothing = Rights(frozenset())
    for need, scope in (
        (lambda: nothing.need_send("gem"), "send:gem"),
        (lambda: nothing.need_read("gem"), "read:gem"),
        (lambda: nothing.need_tools("files"), "tools:files"),
        (nothing.need_operate, "operate"),
        (nothing.need_admin, "admin"),
    ):
        with pytest.raises(Forbidden, match=scope):
            need()
    ANYTHING.need_send("gem")
    ANYTHING.need_tools("files")
    ANYTHING.need_admin()


@pytest.mark.parametrize(
    "scope",
    [
        *("", "send", "send:", "send:nobody", "read: gem", "operate:gem", "Admin", "*", "a:gem"),
        *("tools", "tools:gem", "send:files"),
    ],
)
def test_a_scope_that_is_none_is_refused(scope: str) -> None:
    with pytest.raises(TokenError, match=r"gem.*files"):
        checked_scopes([scope], ["gem"], ["files"])


def test_scopes_are_kept_once() -> None:
    assert checked_scopes(["send:gem", "read:*", "send:gem"], ["gem"]) == ("send:gem", "read:*")
    tools = ("tools:files", "tools:*")
    assert checked_scopes(tools, ["gem"], ["files"]) == tools
    with pytest.raises(TokenError, match="without a scope"):
        checked_scopes([], ["gem"])


def test_only_the_whole_text_of_a_token_that_holds_matches() -> None:
    table = {TOKEN.id: TOKEN}
    assert match(TEXT, table) == TOKEN
    for text in (TEXT[:-1], TEXT + "s", TEXT.replace("_0", "_1"), TEXT[:-1] + "t", "", SECRET):
        assert match(text, table) is None
    assert match(TEXT, {}) is None
    revoked = Token(id=TOKEN.id, name="n", scopes=(), digest=TOKEN.digest, revoked_ms=1)
    assert match(TEXT, {TOKEN.id: revoked}) is None


@given(st.text())
def test_any_text_is_a_token_or_not(text: str) -> None:
    assert match(text, {TOKEN.id: TOKEN}) is None


def test_a_bucket_lets_its_rate_through(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(rate_limit, "monotonic", lambda: now)
    bucket = Bucket(10.0)
    assert sum(bucket.acquire() == 0 for _ in range(100)) == 20  # two seconds' worth at once
    assert bucket.acquire() == pytest.approx(0.1)
    now += 0.11
    assert bucket.acquire() == 0
    now += 3600  # being quiet for long saves up no more
    assert sum(bucket.acquire() == 0 for _ in range(100)) == 20


def test_a_large_batch_passes_and_is_paid_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(rate_limit, "monotonic", lambda: now)
    bucket = Bucket(0.5)
    assert bucket.acquire() == 0
    bucket.overdraw(9)
    assert bucket.acquire() == pytest.approx(20)
    now += 20.1
    assert bucket.acquire() == 0
