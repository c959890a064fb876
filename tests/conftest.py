"""Fixtures of every test: a real Valkey, a store on it, and a check that nothing is left behind."""

import os
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings

from fleet.store import Store, open_store
from tests.fixtures.leaks import undeclared
from tests.fixtures.processes import marked
from tests.fixtures.valkey import Valkey
from tests.quarantine import QUARANTINE

#: The machine may be busy: a slow example is not a failure.
settings.register_profile("fleet", deadline=None, print_blob=True)
settings.load_profile("fleet")

#: Files that take a minute or more. Begun last, one of them would keep a single core busy.
LONG = {"test_left_behind.py", "test_docs.py", "test_output.py", "test_rabbitmq_promises.py"}

SESSION_MARK = "FLEET_TEST_SESSION"


def pytest_report_header() -> list[str]:
    """Print the quarantine with each run."""
    listed = [f"quarantine: {name}: {reason}" for name, reason in QUARANTINE.items()]
    return listed or ["quarantine: empty"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, and let a quarantined test fail."""
    items.sort(key=lambda item: item.path.name not in LONG)
    for item in items:
        if reason := QUARANTINE.get(item.nodeid.partition("[")[0]):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=False))


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    mark = os.environ[SESSION_MARK] = uuid.uuid4().hex
    yield
    left = marked(mark, SESSION_MARK)
    for process in left:
        process.kill()
    assert not left, "processes that outlived their test"


@pytest.fixture(scope="session", autouse=True)
def _no_contexts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hide the developer's `fleet context`: tests work on their own fleets."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


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
