"""The alerts as people and programs see them: open ones, and past ones apart from these.

Three small keys of the store and the memory of this machine are read, and no agent.
"""

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.config.settings import Settings
from fleet.ledger.views import rfc3339
from fleet.ops.alerts import machine_marks, silences
from fleet.ops.alerts.machine import MEMORY, KnownAlert, machine_id, read_memory
from fleet.ops.alerts.machine_marks import MachineMarks
from fleet.ops.alerts.silences import AlertTarget
from fleet.store import Store, keys
from fleet.store.connection import reachable

#: Decides about an agent's name; an alert of no agent has the name ''.
Visible = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Alerts:
    """A reading of all alerts."""

    opened: Mapping[str, Mapping[str, Any]]  #: of the fleet, by key
    past: list[dict[str, Any]]
    silences: Mapping[str, Mapping[str, Any]]  #: by key or name
    machine: Mapping[str, KnownAlert]  #: of this machine, by key
    marks: MachineMarks  #: of this machine's alerts
    folder: Path  #: the data folder of this machine

    @classmethod
    def of_machine(cls, data_dir: Path) -> "Alerts":
        """Those of this machine, which need no store."""
        marks = machine_marks.read(data_dir)
        return cls({}, [], {}, of_machine(data_dir), marks, data_dir)

    def targets(self) -> dict[str, AlertTarget]:
        """Everything an id can stand for: alerts, open or over, and silences of either."""
        rows = [
            *({"key": key, **one} for key, one in self.silences.items() if one["id"]),
            *self.past,
            *({"key": key, **one} for key, one in self.opened.items()),
        ]
        found = {
            one["id"]: AlertTarget(
                key=one.get("key", ""), name=one["name"], id=one["id"], agent=one["agent"]
            )
            for one in rows
        }
        of_machine = {machine_id(key, known): key for key, known in self.machine.items()}
        stored = {str(one["id"]): key for key, one in self.marks.silences.items()}
        for alert_id, key in {**stored, **of_machine}.items():
            name = (
                self.machine[key].name if key in self.machine else self.marks.silences[key]["name"]
            )
            found[alert_id] = AlertTarget(
                key=key,
                name=name,
                id=alert_id,
                folder=self.folder,
                opened=frozenset(of_machine),
            )
        return found

    def to_wire(self, visible: Visible, *, past: bool) -> dict[str, Any]:
        """The document of `GET /alerts`; with `past` those that are over, too."""
        opened = [self._open(key, one) for key, one in self.opened.items() if visible(one["agent"])]
        if visible(""):
            opened += [self._of_machine(key, known) for key, known in self.machine.items()]
        document: dict[str, Any] = {
            "open": sorted(opened, key=lambda one: (one["since"], one["id"]), reverse=True),
            "silences": [
                _silence(one)
                for _, one in sorted([*self.silences.items(), *self.marks.silences.items()])
                if visible(one["agent"])
            ],
        }
        if past:
            document["past"] = [_over(one) for one in self.past if visible(one["agent"])]
        return document

    def _open(self, key: str, one: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": one["id"],
            "name": one["name"],
            "agent": one["agent"] or None,
            "host": None,
            "state": "open",
            "reason": one["reason"],
            "since": rfc3339(one["opened"]),
            "acknowledged": _acknowledged(one.get("ack")),
            "silenced": self._silenced(key, str(one["name"])),
        }

    def _of_machine(self, key: str, known: KnownAlert) -> dict[str, Any]:
        return {
            "id": machine_id(key, known),
            "name": known.name,
            "agent": None,
            "host": socket.gethostname(),
            "state": "open",
            "reason": known.reason,
            "since": rfc3339(known.told_at * 1000),
            "acknowledged": _acknowledged(self.marks.acks.get(machine_id(key, known))),
            "silenced": self._silenced(key, known.name),
        }

    def _silenced(self, key: str, name: str) -> dict[str, Any] | None:
        found = {**self.silences, **self.marks.silences}
        for target in (key, name):
            if target in found:
                return _silence(found[target])
        return None


def read(store: Store, settings: Settings) -> Alerts:
    """All alerts. Raises BrokerUnavailable."""
    with reachable():
        pipe = store.client.pipeline(transaction=False)
        pipe.hgetall(keys.ALERTS)
        pipe.lrange(keys.ALERTS_PAST, 0, -1)
        known, past = pipe.execute()
    opened = {key: json.loads(text) for key, text in known.items()}
    return Alerts(
        # One that an earlier version remembers gets its id within seconds.
        opened={key: one for key, one in opened.items() if one["told"] and one.get("id")},
        past=[json.loads(text) for text in past],
        silences=silences.read(store),
        machine=of_machine(settings.data_dir),
        marks=machine_marks.read(settings.data_dir),
        folder=settings.data_dir,
    )


def of_machine(data_dir: Path) -> dict[str, KnownAlert]:
    """The open alerts of this machine, which need no store."""
    stored = read_memory(data_dir.absolute() / MEMORY)
    return {key: known for key, known in stored.items() if known.told_at}


def _over(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": one["id"],
        "name": one["name"],
        "agent": one["agent"] or None,
        "host": one.get("host"),
        "state": one["state"],
        "reason": one["reason"],
        "since": rfc3339(one["opened"]),
        "ended_at": rfc3339(one["ended"]) if one["state"] == "resolved" else None,
        "acknowledged": _acknowledged(one.get("ack")),
        "dispatch_id": one.get("dispatch_id") or None,
    }


def _acknowledged(ack: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if ack is None:
        return None
    return {"by": ack["by"], "comment": ack["comment"], "at": rfc3339(ack["at_ms"])}


def _silence(one: Mapping[str, Any]) -> dict[str, Any]:
    """A silence: of the condition whose alert has the id, or of a kind."""
    return {
        "id": one["id"] or None,
        "name": one["name"],
        "agent": one["agent"] or None,
        "by": one["by"],
        "comment": one["comment"],
        "since": rfc3339(one["since_ms"]),
        "until": rfc3339(one["until_ms"]),
    }
