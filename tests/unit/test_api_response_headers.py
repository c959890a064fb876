"""A fault of the API is answered like anything else."""

import asyncio
from pathlib import Path

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fleet.api.app import create_api
from fleet.config.settings import parse
from fleet.runtime import Runtime


async def fail(_: Request) -> Response:
    raise ZeroDivisionError("with s3cret content")


def test_a_fault_is_not_kept_and_tells_nothing(tmp_path: Path) -> None:
    settings = parse({"fleet": {"data_dir": str(tmp_path)}}, demo=True)
    app = create_api(Runtime(settings, spools=True))
    app.router.routes.insert(0, Route("/livez", fail))

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            return await http.get("/livez")

    answer = asyncio.run(ask())
    assert answer.status_code == 500
    assert "s3cret" not in answer.text
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers.get_list("cache-control") == ["no-store"]
