"""Tests that fail now and then, each with its reason. The list is meant to be empty.

A test in it still runs. Its failure is reported as expected, and each run prints the whole list.
"""

#: By node id without parameters: `tests/unit/test_x.py::test_y`.
QUARANTINE: dict[str, str] = {}
