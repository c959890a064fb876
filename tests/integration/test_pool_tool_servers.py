"""A pool: the same tests as on workers of their own."""

from tests.fixtures.pooled import on_a_pool
from tests.integration.test_tool_servers import *  # noqa: F403 - the very same tests

__all__ = ["on_a_pool"]

# It kills the one child of a worker that it starts itself.
del test_a_killed_turn_calls_nothing_twice_and_leaves_no_server  # noqa: F821
