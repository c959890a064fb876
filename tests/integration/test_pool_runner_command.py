"""A pool: the same tests as on workers of their own."""

from tests.fixtures.pooled import on_a_pool
from tests.integration.test_runner_command import *  # noqa: F403 - the very same tests

__all__ = ["on_a_pool"]

# It kills the one child of a worker; `test_pool_workers.py` kills a pool's.
del test_a_killed_worker_leaves_no_program_and_its_turn_runs_again  # noqa: F821
