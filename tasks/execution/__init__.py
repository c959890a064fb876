"""Running turns: in a worker, offline, and the imports before the fork.

And the commands of processes that other packages start, without an import of what these run.
"""

from fleet.system.python import PYTHON

#: Runs spooled events; see `tasks.execution.offline`.
OFFLINE_COMMAND = (*PYTHON, "-m", "tasks.execution.offline")
#: Imports an agent's code; see `tasks.code_check`.
CODE_CHECK_COMMAND = (*PYTHON, "-m", "tasks.code_check")
