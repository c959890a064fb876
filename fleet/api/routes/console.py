"""The console: a page of static files.

It shows answers of models. The content security policy therefore allows only its own scripts, and
the page itself only sets text.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from fleet.api.request.problems import Problem

_FOLDER = "console"
_INDEX = "index.html"
_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Revalidated each time: after an upgrade no old script meets a new API.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media_type: str
    etag: str


async def index(request: Request) -> Response:
    """The page itself."""
    return _answer(request, _files()[_INDEX])


async def file(request: Request) -> Response:
    """A script or style of the page, from a fixed set: no path is ever resolved."""
    found = _files().get(request.path_params["file"])
    if found is None or found is _files()[_INDEX]:
        detail = "The console has no such file; it begins at /."
        raise Problem(HTTPStatus.NOT_FOUND, "no-route", detail)
    return _answer(request, found)


def _answer(request: Request, found: _File) -> Response:
    headers = {**_HEADERS, "ETag": found.etag}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=int(HTTPStatus.NOT_MODIFIED), headers=headers)
    return Response(found.body, headers=headers, media_type=found.media_type)


@cache
def _files() -> dict[str, _File]:
    files = {}
    for entry in (resources.files("fleet.api") / _FOLDER).iterdir():
        media_type = _MEDIA_TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None:
            body = entry.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
            files[entry.name] = _File(body, media_type, etag)
    return files
