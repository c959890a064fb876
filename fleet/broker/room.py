"""The connections of a fleet, compared with the clients that its broker takes."""

from typing import Any

import redis

#: A worker and the child that runs its turns, as `CLIENT LIST` shows them.
OF_AN_AGENT = 8
#: All other processes of a fleet, a few clients of the API, and commands.
OF_A_FLEET = 40


def lack_of_room(client: "redis.Redis", agents: int) -> tuple[str, str] | None:
    """The fault and its remedy where the broker takes too few clients; None where all find room.

    Raises redis-py's own errors.
    """
    info: dict[str, Any] = client.info("clients")
    most = int(info.get("maxclients") or 0)
    used, needed = int(info.get("connected_clients") or 0), OF_AN_AGENT * agents + OF_A_FLEET
    if not most or used + needed <= most:
        return None
    fault = (
        f"the broker takes {most} clients and has {used}, and a fleet of {agents} agents needs "
        f"about {needed}"
    )
    return fault, "raise its maxclients and the files that it may open, or use fewer agents"
