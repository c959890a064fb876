"""Senders of a run with outages: by HTTP, by `fleet send` and by Celery, each in its own thread.

Each event has an id of its own, apart from a few by HTTP. Some are sent again unchanged, at once or
much later, and by another door. An event counts as accepted when its sender has read the ids of its
dispatches: in a 202, on the output of a command that exited with 0, or in the Celery task's result.
"""

import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from abc import abstractmethod
from collections import Counter, deque
from contextlib import suppress
from typing import Any

import redis
from celery import Celery
from celery.states import READY_STATES
from kombu.exceptions import OperationalError

from fleet.bench._harness import SenderThread, percentile, rounded
from fleet.bench._outage_fleet import UpFleet
from fleet.store.address import kombu_url
from fleet.store.wakeup import INTAKE_TASK

Event = dict[str, Any]

STEPS = (1, 3)
CALL_S = (0.01, 0.12)
#: One event in this many.
REFUSED_EVERY, PAIR_EVERY, SESSION_EVERY, NAMELESS_EVERY = 11, 12, 4, 15
SESSIONS = 12
#: One call in this many of a door: a batch (HTTP only), an event that was sent before.
BATCH_EVERY, AGAIN_EVERY = 6, 4
BATCH = (2, 6)
#: Events that may be sent again.
REMEMBERED = 400
#: The share of `fleet send` that is killed, and when.
SEND_KILLED_SHARE, SEND_KILLED_S = 0.3, (0.05, 2.0)
SEND_S_MAX = 90.0
CLI_SENDERS = 2
_SOCKET_S = 2.0
REASON_MAX = 60


class Book:
    """The senders' knowledge: answers, by door. Used by all threads."""

    def __init__(self) -> None:
        self.accepted: dict[str, tuple[str, int]] = {}  #: dispatch id -> door, CLOCK_MONOTONIC
        self.by_door: Counter[str] = Counter()  #: events with their first answer
        self.refused: Counter[str] = Counter()  #: by door and answer
        self.cut: Counter[str] = Counter()  #: sent without an answer, by door
        self.repeated = 0  #: answers about events that were accepted before
        self.contradictions: list[str] = []
        self.answer_s: list[float] = []  #: of HTTP
        self._ids: dict[tuple[str, str], frozenset[str]] = {}
        self._sent: deque[Event] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()

    def remember(self, event: Event) -> None:
        """Record an event before it is sent, so that it can be sent again."""
        if "id" in event:
            with self._lock:
                self._sent.append(event)

    def again(self, draw: random.Random) -> Event | None:
        """An event that was sent before, whatever came of it."""
        with self._lock:
            return draw.choice(self._sent) if self._sent else None

    def all_sent(self) -> list[Event]:
        """The events that can be sent again."""
        with self._lock:
            return list(self._sent)

    def answer(self, door: str, event: Event, found: Event, took_s: float = 0.0) -> None:
        """Record an acceptance."""
        ids = frozenset(str(one["dispatch_id"]) for one in found["dispatches"])
        key = (str(event.get("source", "")), str(event.get("id", found["event_id"])))
        with self._lock:
            if took_s:
                self.answer_s.append(took_s)
            before = self._ids.setdefault(key, ids)
            if before != ids:
                self.contradictions.append(f"{key} was told {sorted(before)}, then {sorted(ids)}")
            new = not any(one in self.accepted for one in ids)
            self.by_door[door] += new
            self.repeated += not new
            for one in ids:
                self.accepted.setdefault(one, (door, time.monotonic_ns()))

    def refuse(self, door: str, reason: str) -> None:
        """Record a refusal: the sender knows that the event was not accepted."""
        with self._lock:
            self.refused[f"{door} {reason}"] += 1

    def lose_answer(self, door: str, count: int = 1) -> None:
        """Record a call without an answer: its events may have been accepted."""
        with self._lock:
            self.cut[door] += count

    def figures(self) -> dict[str, Any]:
        """The counts, as they are printed."""
        return {
            "accepted_by_door": dict(sorted(self.by_door.items())),
            "accepted_again": self.repeated,
            "cut_in_mid_request": dict(sorted(self.cut.items())),
            "refused": dict(sorted(self.refused.items())),
            "answer_p50_s": rounded(percentile(self.answer_s or [0.0], 0.5)),
            "answer_p99_s": rounded(percentile(self.answer_s or [0.0], 0.99)),
        }


class Door(SenderThread):
    """A sender with a thread of its own."""

    pause_s: tuple[float, float]

    def __init__(self, fleet: UpFleet, book: Book, seed: int, number: int = 1) -> None:
        """`number` tells doors of one kind apart."""
        super().__init__()
        self.fleet, self.book = fleet, book
        self.number = number
        self.draw = random.Random(f"{seed} {self.name} {number}")
        #: Set while too much waits.
        self.paused = threading.Event()
        self._sent = self._calls = 0

    @abstractmethod
    def send(self, events: list[Event]) -> None:
        """Send one event, or a batch, and record the answers."""

    def batch(self) -> int:
        """The size of the next call."""
        return 1

    def run(self) -> None:
        """See `SenderThread`."""
        while not self.over.wait(self.draw.uniform(*self.pause_s)):
            if self.paused.is_set():
                continue
            self._calls += 1
            repeats = self._calls % AGAIN_EVERY == 0
            event = self.book.again(self.draw) if repeats else None
            events = [event] if event else [self.event() for _ in range(self.batch())]
            for one in events:
                self.book.remember(one)
            self.send(events)

    def event(self) -> Event:
        """The next new event: a CloudEvent or its shorthand."""
        draw, number = self.draw, self._sent
        self._sent += 1
        text = f"{draw.randint(*STEPS)} {draw.uniform(*CALL_S):.3f}"
        if number % REFUSED_EVERY == 0:
            text += " fail"
        data: Event = {"text": text, "to": draw.choice(self.fleet.agents)}
        if number % PAIR_EVERY == 1 and len(self.fleet.agents) > 1:
            data["to"] = draw.sample(self.fleet.agents, 2)
        elif number % SESSION_EVERY == 1:
            data["session"] = f"s{draw.randrange(SESSIONS)}"
        names: Event = {"id": f"{self.name}-{self.number}-{number}", "source": "chaos"}
        if draw.random() < 0.5:
            return names | {"specversion": "1.0", "type": "chaos.turn", "data": data}
        return names | data


class HttpDoor(Door):
    """`POST /events`, single and in batches."""

    name = "http"
    pause_s = (0.02, 0.2)

    def event(self) -> Event:
        """The next new event, sometimes without an id."""
        event = super().event()
        if self._sent % NAMELESS_EVERY == 0 and "specversion" not in event:
            del event["id"]
        return event

    def batch(self) -> int:
        """Mostly one event."""
        return self.draw.randint(*BATCH) if self._calls % BATCH_EVERY == 0 else 1

    def send(self, events: list[Event]) -> None:
        """Send one event as JSON or a CloudEvent, several as a list."""
        cloud = len(events) == 1 and "specversion" in events[0]
        kind = "application/cloudevents+json" if cloud else "application/json"
        body = json.dumps(events[0] if len(events) == 1 else events).encode()
        began = time.monotonic()
        try:
            status, answer = self.fleet.http("POST", "/events", body, kind)
        except ConnectionRefusedError:
            self.book.refuse(self.name, "connection")
            return
        except (OSError, http.client.HTTPException):
            self.book.lose_answer(self.name, len(events))
            return
        took_s = time.monotonic() - began
        if status != http.HTTPStatus.ACCEPTED:
            self.book.refuse(self.name, str(status))
            return
        found = json.loads(answer)
        for event, one in zip(events, found if len(events) > 1 else [found], strict=True):
            if "dispatches" in one:
                self.book.answer(self.name, event, one, took_s)
            else:
                self.book.refuse(self.name, f"batch {one.get('status')}")


class CliDoor(Door):
    """`fleet send --event -`; some of these processes are killed."""

    name = "cli"
    pause_s = (0.0, 0.2)

    def send(self, events: list[Event]) -> None:
        """Run one command to its end, or kill it in between."""
        killed_s = None
        if self.draw.random() < SEND_KILLED_SHARE:
            killed_s = self.draw.uniform(*SEND_KILLED_S)
        process = subprocess.Popen(
            [sys.executable, "-m", "fleet", "send", "--json", "--event", "-"],
            env={**os.environ, **self.fleet.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            text = json.dumps(events[0]).encode()
            output, errors = process.communicate(text, timeout=killed_s or SEND_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
        if process.returncode == 0:
            self.book.answer(self.name, events[0], json.loads(output))
        elif process.returncode < 0:
            self.book.lose_answer(self.name)
        else:
            line = errors.decode(errors="replace").strip().rpartition("\n")[2]
            reason = line.replace(str(self.fleet.folder), "DIR")[:REASON_MAX]
            self.book.refuse(self.name, f"{process.returncode}: {reason}")


class CeleryDoor(Door):
    """`send_task` on the intake queue; the task's result is the answer, which may come later."""

    name = "celery"
    pause_s = (0.1, 0.5)

    def __init__(self, fleet: UpFleet, book: Book, seed: int) -> None:
        super().__init__(fleet, book, seed)
        self._pending: dict[str, Event] = {}

    def send(self, events: list[Event]) -> None:
        """Publish while the broker can be reached, and read the results that are there."""
        endpoint = self.fleet.endpoint()
        if endpoint is None:
            return
        waits = {"socket_timeout": _SOCKET_S, "socket_connect_timeout": _SOCKET_S}
        with Celery(broker=kombu_url(endpoint.url), set_as_current=False) as app:
            app.conf.update(broker_transport_options=waits, broker_connection_timeout=_SOCKET_S)
            try:
                sent = app.send_task(INTAKE_TASK, events, queue="intake", retry=False)
                self._pending[str(sent.id)] = events[0]
            except (OperationalError, redis.RedisError, OSError):
                self.book.lose_answer(self.name)
        self.collect()

    def collect(self, *, last: bool = False) -> None:
        """Read the results that are there; with `last`, no later result counts."""
        endpoint = self.fleet.endpoint()
        if endpoint is not None and self._pending:
            ids = list(self._pending)
            client = redis.Redis.from_url(endpoint.url, socket_timeout=_SOCKET_S)
            with suppress(redis.RedisError), client:
                texts: Any = client.mget([f"celery-task-meta-{one}" for one in ids])
                for task_id, text in zip(ids, texts, strict=True):
                    self._read(task_id, json.loads(text or "{}"))
        if last:
            self.book.lose_answer(self.name, len(self._pending))
            self._pending.clear()

    def _read(self, task_id: str, result: Event) -> None:
        if result.get("status") not in READY_STATES:
            return
        event = self._pending.pop(task_id)
        if result["status"] == "SUCCESS":
            self.book.answer(self.name, event, result["result"])
        else:
            self.book.refuse(self.name, str(result["result"].get("exc_type")))


class Doors:
    """All senders, as one."""

    def __init__(self, fleet: UpFleet, book: Book, seed: int) -> None:
        self._http = HttpDoor(fleet, book, seed)
        self._celery = CeleryDoor(fleet, book, seed)
        # A command takes a second to start.
        commands = [CliDoor(fleet, book, seed, number) for number in range(1, CLI_SENDERS + 1)]
        self.all: list[Door] = [self._http, *commands, self._celery]
        self._book = book

    def start(self) -> None:
        """Start all."""
        for door in self.all:
            door.start()

    def stop(self) -> None:
        """Stop all."""
        for door in self.all:
            door.stop()

    def check(self) -> None:
        """Raise FleetError when one has failed."""
        for door in self.all:
            door.check()

    def pause(self, *, paused: bool) -> None:
        """Let them wait, or go on."""
        for door in self.all:
            (door.paused.set if paused else door.paused.clear)()

    def send_again(self) -> None:
        """Send every remembered event again by HTTP, as a sender who was told nothing."""
        for event in self._book.all_sent():
            self._http.send([event])

    def collect(self) -> None:
        """Read the answers that came late."""
        self._celery.collect(last=True)

    @property
    def accepted(self) -> dict[str, tuple[str, int]]:
        """The accepted dispatches."""
        return self._book.accepted
