"""A process that kills all that a worker left behind: its session and every group in it."""

import os
import select
import signal
from collections.abc import Sequence

from fleet.system.process_group import kill_session
from fleet.worker.state import SharedLeaseState

#: The guardian's longest sleep; a new lease lasts longer.
POLL_INTERVAL_S = 0.25


def start_guardian(pages: Sequence[SharedLeaseState]) -> tuple[int, int]:
    """Fork a guardian, which kills sessions that must not go on.

    It kills all when this process has died, and then stops. It kills one when its lease, on the
    page with the session's number, has run out. A stopped or stuck worker cannot do so itself, and
    its turn would go on beside its successor's.

    Returns its process id, and the file descriptor for its messages: `+PID NUMBER` for a new
    session, `-PID 0` for an ended session.
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
    """Watch until the pipe of messages closes; returns the sessions that are left."""
    sessions: dict[int, SharedLeaseState] = {}
    rest = b""
    while True:
        held = [page.left_s() for page in sessions.values() if page.valid_until]
        timeout_s = max(0.0, min([POLL_INTERVAL_S, *held]))
        if select.select([reader], [], [], timeout_s)[0]:
            received = os.read(reader, 4096)
            if not received:
                return list(sessions)
            *messages, rest = (rest + received).split(b"\n")
            for message in messages:
                pid, number = (int(word) for word in message[1:].split())
                sessions.pop(pid, None)
                if message[:1] == b"+":
                    sessions[pid] = pages[number]
        for pid in [pid for pid, page in sessions.items() if page.lost()]:
            kill_session(pid)
            del sessions[pid]
