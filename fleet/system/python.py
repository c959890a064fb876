"""The command of a Python process of the fleet."""

import sys

#: -P: the folder that the fleet runs in may hold a module with the name of one of ours.
PYTHON = (sys.executable, "-P")
