"""Delivers outcomes to their receivers. A message holds an id; the ledger knows what is open."""

import logging
from functools import partial

from celery import Celery, shared_task
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from fleet import runtime
from fleet.delivery.delivery_worker import WAKEUP_RETRY_DELAY_MS, DeliveryWorker
from fleet.errors import BrokerUnavailable
from fleet.store.wakeup import DELIVER_TASK

logger = logging.getLogger(__name__)


@shared_task(name=DELIVER_TASK)
def deliver(name: str, target: str = "") -> None:
    """Try one receiver of an outcome, and request a delivery to each other one."""
    current = runtime.current()
    request = partial(request_delivery, deliver.app)
    try:
        DeliveryWorker(current.store, current.settings, lambda: current.intake, request).deliver(
            name, target
        )
    except BrokerUnavailable as error:
        # What was not reported stays open: beat requests it again when the broker is back.
        logger.warning("delivery of %s is interrupted: %s", name, error)


def request_delivery(app: Celery, name: str, target: str = "") -> None:
    """Request a delivery now; when that fails, beat requests it later."""
    try:
        app.send_task(
            DELIVER_TASK,
            [name, target] if target else [name],
            queue="delivery",
            ignore_result=True,
            retry=False,
            expires=2 * WAKEUP_RETRY_DELAY_MS / 1000,
        )
    except (OperationalError, RedisError, OSError) as error:
        logger.warning("delivery of %s is not requested now, beat will: %s", name, error)
