"""The peer of `fleet bench api`: an endpoint in front of bare Celery.

It validates the target and text of an event and publishes a task, in a thread because `send_task`
blocks. It has no record, no deduplication, no bus.
"""

import sys

import uvicorn
from celery import Celery
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fleet.store.address import kombu_url


def create(url: str) -> Starlette:
    """The application."""
    celery = Celery(broker=kombu_url(url))
    celery.conf.task_ignore_result = True

    async def send(request: Request) -> JSONResponse:
        event = await request.json()
        if not isinstance(event, dict) or "to" not in event or "text" not in event:
            return JSONResponse({"detail": "no event"}, 400)
        queue = f"bench.{event['to']}"
        sent = await run_in_threadpool(celery.send_task, "bench.turn", [event], queue=queue)
        return JSONResponse({"task_id": sent.id}, 202)

    return Starlette(routes=[Route("/events", send, methods=["POST"])])


if __name__ == "__main__":
    uvicorn.run(
        create(sys.argv[1]),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        access_log=False,
        log_level="error",
    )
