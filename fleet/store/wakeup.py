"""The wake-up: the Celery message of a dispatch, which holds its id and nothing else.

Where the broker is the store, a script pushes it in the same atomic step that moves the dispatch,
so the message is rendered here once, as text with three places to fill (|QUEUE|, |ID|, |TAG|).
It is what `send_task("fleet.dispatch", [id], queue="agent.<name>")` would push, except that
its body is plain JSON instead of base64, which kombu reads as well. A test compares both, so a
change of Celery's or kombu's message format is noticed.
"""

import json
import os
import socket
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from fleet.config.settings import Settings
from fleet.store.address import wakeups_in_store

if TYPE_CHECKING:
    from fleet.store.wakeup_publisher import CeleryWakeupPublisher

#: Publishes a wake-up for an agent's dispatch where the queue is not in the store. Never raises:
#: `fleet.reclaim` publishes another one for a wake-up that was not delivered.
WakeupPublisher = Callable[[str, str], None]

DISPATCH_TASK = "fleet.dispatch"
DELIVER_TASK = "fleet.deliver"
INTAKE_TASK = "fleet.intake"


@cache
def wakeup_template() -> str:
    """The message as JSON text for `push` in `_wakeups.lua`."""
    headers: dict[str, object] = {
        "lang": "py",
        "task": DISPATCH_TASK,
        "id": "|ID|",
        "root_id": "|ID|",
        "parent_id": None,
        "group": None,
        "group_index": None,
        "shadow": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "('|ID|',)",
        "kwargsrepr": "{}",
        "origin": f"{os.getpid()}@{socket.gethostname()}",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    properties = {
        "correlation_id": "|ID|",
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "|QUEUE|"},
        "priority": 0,
        "delivery_tag": "|TAG|",
    }
    return json.dumps(
        {
            "body": json.dumps([["|ID|"], {}, embed]),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": properties,
        }
    )


def publisher_of(settings: Settings) -> "CeleryWakeupPublisher | None":
    """The publisher of a fleet; None where the broker is the store, whose scripts do it."""
    if wakeups_in_store(settings):
        return None
    from fleet.store.wakeup_publisher import CeleryWakeupPublisher  # imports Celery

    return CeleryWakeupPublisher(settings)
