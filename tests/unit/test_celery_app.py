"""A Celery app of the fleet goes by its own settings, and any other by the environment as ever."""

import pytest
from celery import Celery

from fleet.config.foreign_environment import of_celery
from fleet.store.celery_app import celery_app

OURS, THEIRS = "redis://127.0.0.1:6001/0", "redis://127.0.0.1:6002/0"
VARIABLES = (
    *("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"),
    "CELERY_RESULT_BACKEND",
)


@pytest.fixture(autouse=True)
def _of_another_project(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in of_celery():
        monkeypatch.delenv(name)
    for name in VARIABLES:
        monkeypatch.setenv(name, THEIRS)
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "not_there")
    monkeypatch.setenv("CELERY_LOADER", "not_there:Loader")
    # Celery warns, or runs what this names, and a warning fails a test.
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "not_there")


def test_every_connection_is_to_the_fleets_broker() -> None:
    app = celery_app("x", broker=OURS, result_backend=OURS, task_acks_late=True)
    for connect in (app.connection, app.connection_for_read, app.connection_for_write):
        with connect() as connection:
            assert connection.as_uri(include_password=True) == OURS
    assert (app.conf.broker_url, app.conf.broker_read_url, app.conf.broker_write_url) == (OURS,) * 3
    assert app.backend.as_uri() == OURS
    assert app.conf.task_acks_late


def test_what_is_set_later_and_what_is_copied_stays_the_fleets() -> None:
    app = celery_app("x", broker=OURS)
    assert not app.conf.result_backend
    app.conf.task_ignore_result = True
    copied = app.conf.copy()
    assert (copied.broker_url, copied.task_ignore_result) == (OURS, True)


def test_another_app_of_the_process_goes_by_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CELERY_LOADER")
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    monkeypatch.delenv("CELERY_CONFIG_MODULE")
    celery_app("x", broker=OURS)
    assert Celery(broker=OURS, set_as_current=False).conf.broker_url == THEIRS
