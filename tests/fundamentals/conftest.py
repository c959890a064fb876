"""The one fixture of these tests: a `fleet`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.processes import no_leftovers
from tests.fundamentals.fleet import Fleet, running

__all__ = ["no_leftovers"]


@pytest.fixture(params=[False, True], ids=["workers", "pool"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path, no_leftovers: str) -> Iterator[Fleet]:
    """A fleet of the test's own: with a worker for each agent, and with a pool for all of them."""
    with running(tmp_path, pooled=request.param) as fleet:
        yield fleet
