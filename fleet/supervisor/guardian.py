"""Killing all that a worker left behind: its session, whatever process groups are in it."""

import os
import select
import signal
from collections.abc import Sequence

from fleet.system.process_group import kill_session
from fleet.worker.state import SharedLeaseState

#: The longest the guardian sleeps; a lease just taken lasts longer than this.
POLL_INTERVAL_S = 0.25


def start_guardian(pages: Sequence[SharedLeaseState]) -> tuple[int, int]:
    """Fork a process that kills the sessions it was told of, when they or we must not go on.

    That is when this process has died, and it then ends too; and when the lease of a session has
    run out, of which the page with the session's number tells: a worker that is stopped, or stuck,
    cannot end itself, and when it goes on its turn would run beside its successor's.

    Answers its process id, and the file descriptor to tell it on: `+PID NUMBER` for a new session,
    `-PID 0` for an ended one.
    """
    reader, writer = os.pipe()
    if guardian := os.fork():
        os.close(reader)
        return guardian, writer
    os.close(writer)
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for pid in _guard(reader, pages):
        kill_session(pid)
    os._exit(0)


def _guard(reader: int, pages: Sequence[SharedLeaseState]) -> list[int]:
    """Watch until the end of the orders; the sessions that are left."""
    sessions: dict[int, SharedLeaseState] = {}
    told = b""
    while True:
        held = [page.left_s() for page in sessions.values() if page.valid_until]
        patience_s = max(0.0, min([POLL_INTERVAL_S, *held]))
        if select.select([reader], [], [], patience_s)[0]:
            news = os.read(reader, 4096)
            if not news:
                return list(sessions)
            *orders, told = (told + news).split(b"\n")
            for order in orders:
                pid, number = (int(word) for word in order[1:].split())
                sessions.pop(pid, None)
                if order[:1] == b"+":
                    sessions[pid] = pages[number]
        for pid in [pid for pid, page in sessions.items() if page.lost()]:
            kill_session(pid)
            del sessions[pid]
