"""RabbitMQ carries the wake-ups: the same tests as on Valkey alone."""

from collections.abc import Iterator

import pytest

from tests.fixtures.fleet import Fleet, fleet_of
from tests.fixtures.rabbit import Rabbit, needs_rabbitmq
from tests.integration.test_worker_turns import *  # noqa: F403 - the very same tests
from tests.integration.test_worker_turns import MARGIN_S, SOFT_S

pytestmark = needs_rabbitmq


@pytest.fixture(scope="module")  # type: ignore[no-redef]
def fleet(rabbit: Rabbit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """As the Valkey tests' own, with RabbitMQ as its broker."""
    agents = {"quick": {"timeout_s": SOFT_S}, "other": {}}
    folder = tmp_path_factory.mktemp("fleet")
    with fleet_of(folder, agents, hard_limit_margin_s=MARGIN_S, broker_url=rabbit.url) as fleet:
        fleet.ready(*agents)
        yield fleet
