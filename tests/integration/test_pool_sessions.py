"""A pool: the same tests as on workers of their own."""

from tests.fixtures.pooled import on_a_pool
from tests.integration.test_worker_sessions import *  # noqa: F403 - the very same tests

__all__ = ["on_a_pool"]

# Of an agent that has no worker there.
del test_the_command_line_is_refused_in_one_sentence  # noqa: F821
