"""RabbitMQ carries the wake-ups: deaths, stops and outages end as they do on Valkey alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.fleet import Fleet, Process, fleet_of
from tests.fixtures.processes import no_leftovers
from tests.fixtures.rabbit import Rabbit, needs_rabbitmq
from tests.integration import test_worker_deaths, test_worker_drain, test_worker_outage
from tests.integration.test_worker_deaths import (
    pair,
    test_a_killed_worker,
    test_a_worker_that_is_started_after_the_death,
)
from tests.integration.test_worker_drain import (
    test_a_journalled_step_of_a_turn_that_was_handed_back_is_not_repeated,
    test_an_idle_one_ends_at_once,
    test_it_finishes_a_short_turn_and_begins_no_other,
    test_it_hands_back_a_long_turn,
    test_one_that_stands_by_ends_too,
)
from tests.integration.test_worker_outage import (
    assert_one_run,
    test_away_between_two_steps,
    test_away_while_the_turn_ends,
    test_hanging_for_a_moment,
    test_its_data_gone,
    worker,
)

__all__ = [
    "no_leftovers",
    "pair",
    "test_a_journalled_step_of_a_turn_that_was_handed_back_is_not_repeated",
    "test_a_killed_worker",
    "test_a_worker_that_is_started_after_the_death",
    "test_an_idle_one_ends_at_once",
    "test_away_between_two_steps",
    "test_away_while_the_turn_ends",
    "test_hanging_for_a_moment",
    "test_it_finishes_a_short_turn_and_begins_no_other",
    "test_it_hands_back_a_long_turn",
    "test_its_data_gone",
    "test_one_that_stands_by_ends_too",
    "worker",
]
pytestmark = needs_rabbitmq

#: What each test's own file starts its fleet with; the outages are of the store then.
OPTIONS: dict[str, dict[str, Any]] = {
    test_worker_deaths.__name__: {"lease_ttl_s": test_worker_deaths.LEASE_S},
    test_worker_drain.__name__: {"drain_s": test_worker_drain.DRAIN_S},
    test_worker_outage.__name__: {"durable": True, "lease_ttl_s": test_worker_outage.LEASE_S},
}


@pytest.fixture
def fleet(
    rabbit: Rabbit, no_leftovers: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Fleet]:
    """As in the file that the test is from, with RabbitMQ as its broker."""
    options = OPTIONS.get(request.function.__module__, {})
    with fleet_of(tmp_path, {"a": {}}, broker_url=rabbit.url, **options) as fleet:
        yield fleet
    rabbit.purge("agent.a")


@pytest.mark.timeout(120)
def test_rabbitmq_killed_and_started_again_in_mid_turn(
    fleet: Fleet, worker: Process, rabbit: Rabbit
) -> None:
    """One run, although its wake-up comes again; an event accepted in the same time runs too."""
    running = fleet.send("a", "gate open")
    fleet.wait_started(running)
    rabbit.kill()
    worker.wait_said("Connection to broker lost")
    meanwhile = fleet.send("a", "say it")
    fleet.open_gate("open")
    assert_one_run(fleet, running)
    rabbit.start()
    fleet.wait_state(meanwhile, "completed")
    assert_one_run(fleet, meanwhile)
    assert_one_run(fleet, running)
