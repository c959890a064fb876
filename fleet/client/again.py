"""Work run again: a resend, and the replay of dead letters."""

import uuid
from collections.abc import Mapping
from typing import Any

from fleet.client.connection import ApiConnection, path_of

Record = dict[str, Any]


class RunsAgain:
    """The part of `Fleet` that runs work again."""

    _connection: ApiConnection

    def resend(
        self, dispatch_id: str, changes: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Record:
        """Send the event of a dispatch again, with `changes` of its text, target and the like.

        Answers the ids of the new event, as `POST /events` does.
        """
        answer: Record = self._connection.call(
            "POST",
            path_of("dispatches", dispatch_id, "resend"),
            body={**changes, "id": idempotency_key or str(uuid.uuid4())},
            repeatable=True,
        )
        return answer

    def replay_dead_letters(
        self, agent: str | None, since: str | None, reason: str, limit: int
    ) -> Record:
        """Replay the dead letters that ended first, `limit` at most.

        Answers the ids that were `replayed`, those `refused`, and whether there are `more`.
        """
        given = {"agent": agent, "since": since, "reason": reason, "limit": limit}
        body = {name: value for name, value in given.items() if value}
        answer: Record = self._connection.call("POST", "/dead-letters/replay", body=body)
        return answer
