"""Integration tests may ask for a `celery_setup`: pytest-celery, on processes or containers."""

from tests.fixtures.process import *  # noqa: F403 - the list is kept there
