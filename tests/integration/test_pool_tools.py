"""A pool: the same tests as on workers of their own."""

from tests.fixtures.pooled import on_a_pool
from tests.integration.test_tools import *  # noqa: F403 - the very same tests

__all__ = ["on_a_pool"]

# They kill the one child of a worker, or need an agent without one.
del test_a_killed_turn_pays_for_nothing_twice  # noqa: F821
del test_agents_give_each_other_work  # noqa: F821
del test_what_an_agent_may_not_do_is_said  # noqa: F821
