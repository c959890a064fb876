"""Signed HTTP messages, after Standard Webhooks (standardwebhooks.com).

A receiver can distinguish a message from a forgery and from a replay.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime

#: The greatest error of a message's time (the specification's five minutes).
TOLERANCE_S = 300
_PREFIX = "whsec_"


class BadSignature(Exception):
    """The message was not signed with the secret, or is too old."""


def headers(
    secret: str, message_id: str, body: bytes, now: datetime | None = None
) -> dict[str, str]:
    """The three headers of a message."""
    timestamp = str(int((now or datetime.now(UTC)).timestamp()))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{_sign(secret, message_id, timestamp, body)}",
    }


def verify(
    secret: str, received: Mapping[str, str], body: bytes, now: datetime | None = None
) -> str:
    """The message's id. Raises BadSignature.

    Several signatures may be given, as while a secret changes; one match is enough.
    """
    message_id = received.get("webhook-id", "")
    timestamp = received.get("webhook-timestamp", "")
    if not timestamp.isascii() or not timestamp.isdecimal() or len(timestamp) > 12:
        raise BadSignature("webhook-timestamp must be a number of seconds.")
    if abs((now or datetime.now(UTC)).timestamp() - int(timestamp)) > TOLERANCE_S:
        raise BadSignature("webhook-timestamp is more than five minutes off.")
    wanted = f"v1,{_sign(secret, message_id, timestamp, body)}".encode()
    given = received.get("webhook-signature", "").encode().split(b" ")
    # All are compared, so that the time reveals nothing.
    fits = [hmac.compare_digest(wanted, one) for one in given[:8]]
    if True not in fits:
        raise BadSignature("webhook-signature does not fit.")
    return message_id


def check_secret(secret: str) -> None:
    """Raises ValueError for a weak or malformed secret."""
    if secret.startswith(_PREFIX):
        try:
            base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("begins with whsec_ but is not base64 after it") from None
    if len(_key(secret)) < 16:
        raise ValueError("is shorter than 16 bytes")


def _key(secret: str) -> bytes:
    if secret.startswith(_PREFIX):
        return base64.b64decode(secret.removeprefix(_PREFIX))
    return secret.encode()


def _sign(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    message = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.digest(_key(secret), message, hashlib.sha256)).decode()
