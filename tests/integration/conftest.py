"""Integration tests may ask for a `celery_setup`, on processes or containers, and for RabbitMQ."""

from collections.abc import Iterator
from typing import Any

import pytest

from fleet import runtime
from fleet.config.settings import load
from fleet.store import Store
from tests.fixtures.alerting import *  # noqa: F403 - the list is kept there
from tests.fixtures.chains import MakeBooks, settings_with
from tests.fixtures.ledger import Books, Twice
from tests.fixtures.process import *  # noqa: F403 - the list is kept there
from tests.fixtures.rabbit import Rabbit, running_rabbit
from tests.fixtures.valkey import Valkey


@pytest.fixture(params=["once", "repeated"])
def books(request: pytest.FixtureRequest, store: Store) -> MakeBooks:
    """A ledger with a chain of the given stages; once as if each reply was lost."""

    def make(*stages: Any, **options: Any) -> Books:
        kind = Twice if request.param == "repeated" else Store
        return Books(kind(store.client, 10_000, wakes=True), settings_with(*stages, **options))

    return make


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory, _no_process_is_left: None) -> Iterator[Rabbit]:
    """One server for the whole run: it takes ten seconds to start."""
    with running_rabbit(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture
def fleet_here(store: Store, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is one of a fleet on the test's server: a runner asks it what may be spent."""
    monkeypatch.setenv("FLEET_BROKER_URL", valkey.url)
    load.cache_clear()
    runtime.set_current(None)
    yield
    runtime.current().store.close()
    monkeypatch.undo()
    load.cache_clear()
    runtime.set_current(None)
