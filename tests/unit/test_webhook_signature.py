"""Signatures of webhooks, and their times."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from fleet.formats.webhook_signature import BadSignature, check_secret, headers, verify

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_the_specifications_own_example() -> None:
    """The vector that the Standard Webhooks libraries test themselves with."""
    signed = headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
        datetime.fromtimestamp(1614265330, UTC),
    )
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_was_signed_is_accepted() -> None:
    assert verify(SECRET, headers(SECRET, "m1", b"body", NOW), b"body", NOW) == "m1"


def test_one_of_two_signatures_is_enough() -> None:
    signed = headers(SECRET, "m1", b"body", NOW)
    signed["webhook-signature"] = f"v1,AAAA {signed['webhook-signature']}"
    assert verify(SECRET, signed, b"body", NOW) == "m1"


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "m2"},
        {"webhook-timestamp": "1"},
        {"webhook-timestamp": "x"},
        {"webhook-timestamp": "٣"},
        {"webhook-timestamp": ""},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "v1a,ééé"},
    ],
)
def test_anything_else_is_not(change: dict[str, str]) -> None:
    with pytest.raises(BadSignature):
        verify(SECRET, headers(SECRET, "m1", b"body", NOW) | change, b"body", NOW)


def test_another_body_and_another_secret_are_not() -> None:
    signed = headers(SECRET, "m1", b"body", NOW)
    with pytest.raises(BadSignature):
        verify(SECRET, signed, b"bodY", NOW)
    with pytest.raises(BadSignature):
        verify("another secret of some length", signed, b"body", NOW)


@pytest.mark.parametrize("minutes", [-6, 6])
def test_an_old_message_is_a_replay(minutes: int) -> None:
    signed = headers(SECRET, "m1", b"body", NOW)
    with pytest.raises(BadSignature, match="five minutes"):
        verify(SECRET, signed, b"body", NOW + timedelta(minutes=minutes))


@pytest.mark.parametrize("secret", ["short", "whsec_!!!", "whsec_AAAA"])
def test_a_weak_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match=r"shorter|base64"):
        check_secret(secret)
