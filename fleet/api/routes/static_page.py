"""A page of static files, which ask nobody but this API.

The content security policy allows only the page's own scripts and styles.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from fleet.api.request.problems import Problem

_INDEX = "index.html"
_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media_type: str
    etag: str


class StaticPage:
    """The page in a folder of `fleet.api`. `images` are the sources of its pictures."""

    def __init__(self, folder: str, *, images: str = "'self'") -> None:
        self._folder = folder
        self._headers = {
            "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
            f"connect-src 'self'; img-src {images}; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            # Revalidated each time: after an upgrade no old script meets a new API.
            "Cache-Control": "no-cache",
        }

    async def index(self, request: Request) -> Response:
        """The page itself."""
        return self._answer(request, self._files[_INDEX])

    async def file(self, request: Request) -> Response:
        """A script or style of the page, from a fixed set: no path is ever resolved."""
        found = self._files.get(request.path_params["file"])
        if found is None or found is self._files[_INDEX]:
            detail = "The page has no such file."
            raise Problem(HTTPStatus.NOT_FOUND, "no-route", detail)
        return self._answer(request, found)

    def _answer(self, request: Request, found: _File) -> Response:
        headers = {**self._headers, "ETag": found.etag}
        if request.headers.get("if-none-match") == found.etag:
            return Response(status_code=int(HTTPStatus.NOT_MODIFIED), headers=headers)
        return Response(found.body, headers=headers, media_type=found.media_type)

    @cached_property
    def _files(self) -> dict[str, _File]:
        files = {}
        for entry in (resources.files("fleet.api") / self._folder).iterdir():
            media_type = _MEDIA_TYPES.get(entry.name.rpartition(".")[2])
            if media_type is not None:
                body = entry.read_bytes()
                etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
                files[entry.name] = _File(body, media_type, etag)
        return files
