"""How many files a process may open."""

import resource
from contextlib import suppress

from fleet.errors import FleetError

#: Enough for any process of a fleet; some programs look at every number up to the limit.
ENOUGH = 65_536
#: A worker opens about 40, a supervisor three for each process and each agent, a host three for
#: each worker.
OF_A_PROCESS, OF_AN_AGENT = 96, 3


def check_file_limit(agents: int) -> None:
    """Raise the limit as far as allowed. Raises FleetError where that is not enough."""
    limit, needed = raise_file_limit(), OF_A_PROCESS + OF_AN_AGENT * agents
    if limit < needed:
        raise FleetError(
            f"A process may open {limit} files here, and one of a fleet of {agents} agents opens "
            f"up to {needed}: raise the hard limit (ulimit -Hn, or LimitNOFILE= in the unit)."
        )


def raise_file_limit() -> int:
    """Raise this process's limit, which its children inherit, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # another rule of the system
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENOUGH if soft == resource.RLIM_INFINITY else soft
