"""`python -m fleet.system.reap LEADER`: kills what is left of a session once its leader has ended.

Started by `fleet.system.lifeline` in the leader, which is our parent and bounds its own end.
"""

import os
import sys
import time

from fleet.system.process_group import kill_session

_POLL_S = 0.02


def main(leader: int) -> None:
    """Wait for the end of `leader`, then leave nothing of its session."""
    while os.getppid() == leader:
        time.sleep(_POLL_S)
    kill_session(leader)


if __name__ == "__main__":
    main(int(sys.argv[1]))
