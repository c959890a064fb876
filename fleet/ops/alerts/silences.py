"""Silences and acknowledgements: who knows of an alert, and until when it is sent to nobody."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.config.nearest_name import nearest
from fleet.ledger.operations import NotPossible, Unknown
from fleet.ops.alerts import machine_marks
from fleet.ops.alerts.names import NAMES
from fleet.store import Store, keys
from fleet.store.alert_calls import AlertMarkCall
from fleet.store.connection import reachable

#: A longer silence would be forgotten by those who made it.
SILENCE_S_MAX = 30 * 86400.0
SILENCES_MAX = 200
COMMENT_CHARS_MAX = 500
#: The least characters of an id that stand for it.
ID_CHARS_MIN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertTarget:
    """The alert, or with a name alone the kind of alert, that a person means."""

    key: str  #: of the condition, or a name; empty for a notice
    name: str
    id: str = ""  #: of the opening; empty for a kind
    agent: str = ""
    folder: Path | None = None  #: the data folder of the machine, where it is an alert of one
    opened: frozenset[str] = frozenset()  #: there, the ids of all that are open

    def marked(self, state: str, by: str | None = None) -> dict[str, Any]:
        """The outcome of marking the target, as programs see it."""
        return {"id": self.id or None, "name": self.name, "state": state, "by": by}


def is_comment(text: str) -> bool:
    """True for a reason that others see: one short printable line, or none."""
    return len(text) <= COMMENT_CHARS_MAX and (not text or text.isprintable())


def silenced(store: Store) -> frozenset[str]:
    """The keys and names of alerts that are sent to nobody now. Raises BrokerUnavailable."""
    return frozenset(read(store))


def read(store: Store) -> dict[str, dict[str, Any]]:
    """The silences in force, by key or name. Raises BrokerUnavailable."""
    with reachable():
        found: Any = store.client.hgetall(keys.ALERTS_SILENCES)
        now_ms = store.clock.now_ms()
    stored = {target: json.loads(text) for target, text in found.items()}
    return {target: one for target, one in stored.items() if one["until_ms"] > now_ms}


def resolve(text: str, alerts: Mapping[str, AlertTarget]) -> AlertTarget:
    """The target that `text` names among `alerts`, by id. Raises Unknown or NotPossible.

    It is the name of a kind of alert, or an id or the only one that begins like it.
    """
    if text in NAMES:
        return AlertTarget(key=text, name=text)
    if len(text) >= ID_CHARS_MIN:
        found = [target for known, target in alerts.items() if known.startswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(f"{one.id} ({one.name})" for one in found[:5])
            raise NotPossible(f"{text} is ambiguous: it begins {some}; give more of the id.")
    like = nearest(text, NAMES)
    hint = f"; did you mean {like}?" if like else ": see `fleet alerts` for ids and names."
    raise Unknown(f"{text[:100]!r} is neither the id of an alert nor a name of one{hint}")


def silence(store: Store, target: AlertTarget, *, for_s: float, by: str, comment: str = "") -> None:
    """Send the target to nobody for `for_s` from now. Raises NotPossible, FleetError.

    The store is used for what is not of one machine.
    """
    if not target.key:
        raise NotPossible(
            f"{target.id} ({target.name}) is a notice, which is over at once: silence its name."
        )
    if target.folder is not None:
        about = {"id": target.id, "name": target.name, "agent": "", "by": by, "comment": comment}
        machine_marks.silence(target.folder, target.key, for_s=for_s, **about)
        return
    call = AlertMarkCall(
        verb="silence",
        target=target.key,
        alert_id=target.id,
        name=target.name,
        agent=target.agent,
        by=by,
        comment=comment,
        for_ms=int(for_s * 1000),
        silences_max=SILENCES_MAX,
    )
    if store.run(call) == "full":
        raise NotPossible(
            f"There are {SILENCES_MAX} silences: end some with `fleet alerts unsilence`, "
            "or silence a whole kind by its name."
        )


def unsilence(store: Store, target: AlertTarget) -> None:
    """End the silence of the target. Raises Unknown where it has none, FleetError."""
    if target.folder is not None and machine_marks.unsilence(target.folder, target.key):
        return
    if store.run(AlertMarkCall(verb="unsilence", target=target.key)) == "gone":
        raise Unknown(f"{target.id or target.name} has no silence of its own: see `fleet alerts`.")


def acknowledge(store: Store, target: AlertTarget, *, by: str, comment: str = "") -> None:
    """Record that `by` knows of an open alert. Raises Unknown, NotPossible, FleetError."""
    if not target.id:
        raise NotPossible(
            f"{target.name} is a kind of alert: acknowledge one by its id, see `fleet alerts`."
        )
    if target.folder is not None:
        machine_marks.acknowledge(target.folder, target.id, target.opened, by=by, comment=comment)
        return
    call = AlertMarkCall(verb="ack", target=target.key, alert_id=target.id, by=by, comment=comment)
    if store.run(call) == "gone":
        raise NotPossible(f"{target.id} ({target.name}) is over: there is nothing to acknowledge.")
