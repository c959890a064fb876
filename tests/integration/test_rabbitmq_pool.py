"""RabbitMQ carries the wake-ups of a pool: the same tests as on Valkey alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.rabbit import Rabbit, needs_rabbitmq
from tests.integration.test_pool_workers import *  # noqa: F403 - the very same tests
from tests.integration.test_pool_workers import AGENTS, OPTIONS, POOL

pytestmark = needs_rabbitmq

# Celery's events come over RabbitMQ there, which `test_rabbitmq_turns.py` has.
del test_every_dispatch_is_shown_to_those_who_follow_celerys_events  # noqa: F821


@pytest.fixture  # type: ignore[no-redef]
def fleet(
    request: pytest.FixtureRequest, no_leftovers: str, rabbit: Rabbit, tmp_path: Path
) -> Iterator[Fleet]:
    """As the Valkey tests' own, with RabbitMQ as its broker."""
    options = {**OPTIONS, **getattr(request, "param", {}), "broker_url": rabbit.url}
    with fleet_of(tmp_path, AGENTS, sections=POOL, **options) as fleet:
        yield fleet
