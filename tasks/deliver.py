"""Delivers outcomes to their receivers. A message holds an id; the ledger knows what is open."""

import logging

from celery import Celery, shared_task
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from fleet import runtime
from fleet.delivery.delivery_worker import WAKEUP_RETRY_DELAY_MS, DeliveryWorker
from fleet.errors import BrokerUnavailable
from fleet.store.wakeup import DELIVER_TASK

logger = logging.getLogger(__name__)


@shared_task(name=DELIVER_TASK)
def deliver(dispatch_id: str) -> None:
    """Try each open and due receiver of one announced outcome."""
    try:
        DeliveryWorker(runtime.store(), runtime.settings(), runtime.intake).deliver(dispatch_id)
    except BrokerUnavailable as error:
        # What was not reported stays open: beat requests it again when the broker is back.
        logger.warning("delivery of %s is interrupted: %s", dispatch_id, error)


def request_delivery(app: Celery, dispatch_id: str) -> None:
    """Request a delivery now; when that fails, beat requests it later."""
    try:
        app.send_task(
            DELIVER_TASK,
            [dispatch_id],
            queue="delivery",
            ignore_result=True,
            retry=False,
            expires=2 * WAKEUP_RETRY_DELAY_MS / 1000,
        )
    except (OperationalError, RedisError, OSError) as error:
        logger.warning("delivery of %s is not requested now, beat will: %s", dispatch_id, error)
