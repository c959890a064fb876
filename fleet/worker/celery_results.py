"""Celery's result backend, for the answers of `fleet.intake`."""

import logging
from typing import Any

from celery import current_task
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.exceptions import Reject
from redis import RedisError

logger = logging.getLogger(__name__)


class AnswerBackend(RedisBackend):
    """Stores an answer, or gives its message back to the queue.

    Celery itself would store the trouble as the answer: a failure of what was accepted.
    """

    def store_result(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        """Store it; raises Reject within a task, and the message comes again."""
        try:
            return super().store_result(task_id, *args, **kwargs)
        except RedisError as error:
            if not current_task:  # type: ignore[truthy-bool]  # a proxy
                raise
            logger.warning(
                "the answer to %s cannot be stored, and is given again: %s", task_id, error
            )
            raise Reject(str(error), requeue=True) from error


class SentinelAnswerBackend(AnswerBackend, SentinelBackend):
    """The same behind Sentinel."""
