"""What every test can ask for: a real Valkey, a store on it, and a look for what is left behind."""

import os
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings

from fleet.store import Store, open_store
from tests.fixtures.leaks import undeclared
from tests.fixtures.processes import marked
from tests.fixtures.valkey import Valkey

#: The machine is shared: a slow example is no failure.
settings.register_profile("fleet", deadline=None, print_blob=True)
settings.load_profile("fleet")

SESSION_MARK = "FLEET_TEST_SESSION"


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    mark = os.environ[SESSION_MARK] = uuid.uuid4().hex
    yield
    left = marked(mark, SESSION_MARK)
    for process in left:
        process.kill()
    assert not left, "processes that outlived their test"


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory, _no_process_is_left: None) -> Iterator[Valkey]:
    """A server for the whole run; its data are thrown away by each `store`."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    yield server.start()
    server.kill()


@pytest.fixture
def store(valkey: Valkey) -> Iterator[Store]:
    """An empty store; the test fails when a key stays in it that nothing will ever remove."""
    opened = open_store(valkey.url)
    opened.client.flushall()
    yield opened
    left = undeclared(opened.client)
    opened.close()
    assert not left
