"""Running turns: in a worker, offline, and the imports before the fork."""

from fleet.system.python import PYTHON

#: Runs spooled events; see `tasks.execution.offline`.
OFFLINE_COMMAND = (*PYTHON, "-m", "tasks.execution.offline")
