"""The promises hold as well where RabbitMQ carries the wake-ups: the same tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.processes import no_leftovers
from tests.fixtures.rabbit import Rabbit, needs_rabbitmq
from tests.fundamentals.fleet import Fleet, running
from tests.fundamentals.test_bounded import *  # noqa: F403 - the very same tests
from tests.fundamentals.test_cancelled import *  # noqa: F403
from tests.fundamentals.test_fenced import *  # noqa: F403
from tests.fundamentals.test_in_order import *  # noqa: F403
from tests.fundamentals.test_one_at_a_time import *  # noqa: F403
from tests.fundamentals.test_resumed import *  # noqa: F403
from tests.fundamentals.test_retried_then_dead import *  # noqa: F403

__all__ = ["no_leftovers"]
pytestmark = needs_rabbitmq


@pytest.fixture
def fleet(rabbit: Rabbit, no_leftovers: str, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet of the test's own, with RabbitMQ as its broker."""
    with running(tmp_path, broker_url=rabbit.url) as fleet:
        yield fleet
    for agent in fleet.agents:
        rabbit.purge(f"agent.{agent}")
