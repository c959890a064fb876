"""Running turns: in a worker, offline, and what is loaded before the fork."""

import sys

#: Runs spooled events; see `tasks.execution.offline`.
OFFLINE_COMMAND = (sys.executable, "-m", "tasks.execution.offline")
