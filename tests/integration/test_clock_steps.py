"""The clock goes back by two hours: what had seconds left on it has seconds left, not hours.

The server's keys then have two more hours to live, which `PEXPIRE` imitates.
"""

import os
import subprocess
import sys

import pytest

from fleet.config.settings import parse
from fleet.errors import Refused
from fleet.ledger.maintenance import periodic_lock
from fleet.store import Store
from tests.fixtures.ledger import Books

TWO_HOURS_MS = 7_200_000


def gain(store: Store, key: str) -> None:
    """Let a key live for two hours more."""
    left: int = store.client.pttl(key)
    assert left > 0
    store.client.pexpire(key, left + TWO_HOURS_MS)


def test_a_periodic_job_goes_on(store: Store) -> None:
    assert periodic_lock(store, "sweep", 60)
    (key,) = store.client.scan_iter("fleet:turn:*")
    gain(store, key)
    assert not periodic_lock(store, "sweep", 60)
    assert store.client.pttl(key) <= 60_000


def test_a_sender_has_its_next_minute(store: Store) -> None:
    agent = {"runner": "python", "python": "nobody:nothing"}
    books = Books(store, parse({"agents": {"a": agent}, "caps": {"sender_per_minute": 1}}))
    books.accept("a", source="chatty")
    (key,) = store.client.scan_iter("fleet:sender:*")
    gain(store, key)
    with pytest.raises(Refused):
        books.accept("a", source="chatty")
    assert store.client.pttl(key) <= 60_000


#: A process whose clock goes back while it waits: prints how long a job of beat then waits.
BEAT = """
import time
from fleet.celery import app
due = app.conf.beat_schedule["reclaim"]["schedule"]
last, back = due.now(), time.time() - 7200
time.time = lambda: back
print(due.remaining_estimate(last).total_seconds())
"""


def test_beat_goes_by_a_clock_that_nobody_sets() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEAT],
        env={**os.environ, "FLEET_BROKER_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert float(done.stdout) <= 1.0
