"""Running turns: in a worker, offline, and the imports before the fork."""

import sys

#: Runs spooled events; see `tasks.execution.offline`.
OFFLINE_COMMAND = (sys.executable, "-m", "tasks.execution.offline")
