"""pytest-celery on processes of this machine: what the other integration tests trust."""

import os
import signal

import pytest
from pytest_celery import RESULT_TIMEOUT, CeleryTestSetup
from pytest_celery.vendors.worker.tasks import add

from tests.fixtures.processes import no_leftovers

__all__ = ["no_leftovers"]

pytestmark = pytest.mark.usefixtures("no_leftovers")


def sum_of(setup: CeleryTestSetup, x: int, y: int, timeout: float = RESULT_TIMEOUT) -> int:
    result = add.s(x, y).apply_async(queue=setup.worker.worker_queue)
    total: int = result.get(timeout=timeout)
    return total


def test_a_task_is_done_and_the_worker_answers(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(ping=True, control=True)
    assert len(celery_setup) == 3
    celery_setup.worker.assert_log_exists("ready.")
    processes = celery_setup.worker.get_running_processes_info(["cmdline"])
    assert any("worker" in (process["cmdline"] or []) for process in processes)


def test_a_killed_worker_is_started_again(celery_setup: CeleryTestSetup) -> None:
    worker = celery_setup.worker
    worker.kill(signal.SIGKILL)
    assert worker.container.status == "exited"
    result = add.s(2, 2).apply_async(queue=worker.worker_queue)
    worker.restart()
    assert result.get(timeout=RESULT_TIMEOUT) == 4


def test_a_restarted_broker_is_found_again(celery_setup: CeleryTestSetup) -> None:
    celery_setup.broker.restart()
    assert sum_of(celery_setup, 3, 4, timeout=30) == 7


@pytest.mark.docker
def test_the_same_in_containers(celery_setup: CeleryTestSetup) -> None:
    if os.environ.get("FLEET_TEST_INFRA") != "docker":
        pytest.skip("set FLEET_TEST_INFRA=docker")
    assert celery_setup.ready(ping=True)
