"""Messages that no producer of Celery's would send: refused and told, and the worker goes on.

Celery and kombu trust what a queue holds. A message of another form ends the whole worker, in the
main loop and before any task begins; a queue of such messages ends it again and again.
"""

import logging
from collections.abc import Callable
from typing import Any

from celery import bootsteps
from kombu.exceptions import KombuError
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from fleet.worker.remote_control import count_refusal

logger = logging.getLogger(__name__)

transport: Any = kombu_redis  # names below are not in its types

#: As in `routing.event`, with room for what others put before an id.
ID_CHARS_MAX = 1000


class BrokenMessage(Exception):
    """A message that is none of kombu's."""


class CheckedMessage(virtual.Message):
    """A message of kombu's, or BrokenMessage."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        try:
            super().__init__(payload, channel=channel, **kwargs)
        except Exception as error:  # whatever the content of a queue leads to
            raise BrokenMessage("it is no message of Celery's") from error
        if not (_is_text(self.delivery_tag) and isinstance(self.delivery_info or {}, dict)):
            raise BrokenMessage("its delivery tag or delivery information has another type")


class RefuseBroken(bootsteps.StartStopStep):
    """Consumer bootstep: looks at each message before Celery does."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        _check_in_kombu()
        make = consumer.create_task_handler

        def create_task_handler(*args: Any, **more: Any) -> Callable[[Any], None]:
            handle = make(*args, **more)

            def on_message(message: Any) -> None:
                fault = fault_of(message)
                if not fault:
                    handle(message)
                    return
                message.reject_log_error(logger, consumer.connection_errors)
                refuse(str(consumer.hostname), fault)

            return on_message

        consumer.create_task_handler = create_task_handler


def fault_of(message: Any) -> str:
    """The reason for which Celery could not take this message up, in words without content."""
    if message.errors:
        return ""  # Celery deletes it
    headers = message.headers or {}
    if not isinstance(headers, dict):
        return "its headers are no object"
    try:
        body = message.payload
    except (KombuError, ValueError, LookupError, TypeError):
        return "its body cannot be decoded"
    if "task" not in headers:  # protocol 1: all is in the body
        headers = body if isinstance(body, dict) else {}
    elif not (_is_call(body) or (isinstance(body, dict) and "args" in body)):
        return "its body is not [arguments, named arguments, options]"
    if not (_is_text(headers.get("task")) and _is_text(headers.get("id"))):
        return "it names no task, or has no id"
    if not _are_limits(headers.get("timelimit")):
        return "its time limits are no two numbers"
    return ""


def refuse(who: str, fault: str) -> None:
    """Log that a message was deleted, and count it: a series of them becomes an alert."""
    logger.warning("%s refused a message: %s; it is deleted", who, fault)
    count_refusal()


def _is_text(value: Any) -> bool:
    """True for text that can be a key of the store."""
    if not isinstance(value, str) or not 0 < len(value) <= ID_CHARS_MAX:
        return False
    return not any(0xD800 <= ord(char) <= 0xDFFF for char in value)


def _is_call(body: Any) -> bool:
    if not isinstance(body, list | tuple) or len(body) != 3:
        return False
    arguments, named, options = body
    if not (isinstance(arguments, list | tuple) and isinstance(named, dict)):
        return False
    return isinstance(options, dict) and all(
        isinstance(options.get(name) or [], list) for name in ("callbacks", "errbacks", "chain")
    )


def _are_limits(limits: Any) -> bool:
    if not limits:
        return True
    return (
        isinstance(limits, list | tuple)
        and len(limits) == 2
        and all(limit is None or isinstance(limit, int | float) for limit in limits)
    )


def _check_in_kombu() -> None:
    """Have kombu's transport refuse what it cannot read, in this process."""
    if transport.Channel.Message is CheckedMessage:
        return
    loads, deliver = transport.loads, transport.Transport._deliver

    def loads_or_none(text: str, **kwargs: Any) -> Any:
        try:
            return loads(text, **kwargs)
        except (ValueError, RecursionError):
            return None  # no message, which `deliver_checked` tells

    def deliver_checked(self: Any, raw: Any, queue: str) -> None:
        try:
            deliver(self, raw, queue)
        except BrokenMessage as error:
            refuse(f"the worker of {queue}", str(error))

    transport.loads = loads_or_none
    transport.Channel.Message = CheckedMessage
    transport.Transport._deliver = deliver_checked
