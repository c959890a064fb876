"""A pool: the same tests as on workers of their own."""

from tests.fixtures.pooled import on_a_pool
from tests.integration.test_worker_chains import *  # noqa: F403 - the very same tests

__all__ = ["on_a_pool"]
