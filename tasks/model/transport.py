"""The connections of model calls: each goes by the proxy that the environment names for its host.

What they bring is put into its plain form (`tasks.model.wire`) before LiteLLM reads it.

LiteLLM makes its clients ahead of the calls, and a variable that httpx cannot read would fail all.
"""

import os
from collections.abc import Callable
from typing import Any

import httpx

from fleet.system.outgoing import UnusableVariable, authorities, proxy_for
from tasks.model import wire


class EnvironmentTransport(httpx.BaseTransport):
    """One pool for each proxy and scheme, opened when it is first needed, kept by the process."""

    def __init__(self, verify: Callable[[], Any]) -> None:
        """`verify` makes httpx's argument of this name, from LiteLLM's own variables too."""
        self._verify = verify
        # One is made before the fork, because it imports for all.
        direct = httpx.HTTPTransport(verify=authorities("http://"))
        self._pools: dict[tuple[str | None, str], httpx.HTTPTransport] = {(None, "http"): direct}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it. Raises httpx.ConnectError that names a variable which cannot be used."""
        url = str(request.url)
        try:
            key = proxy_for(url), request.url.scheme
            if key not in self._pools:
                verify = authorities(url)
                if request.url.scheme == "https":
                    verify = self._verify()
                cert = os.environ.get("SSL_CERTIFICATE")
                self._pools[key] = httpx.HTTPTransport(proxy=key[0], verify=verify, cert=cert)
        except UnusableVariable as error:
            raise httpx.ConnectError(str(error), request=request) from error
        # A compressed answer could not be mended; answers of models are short.
        request.headers["accept-encoding"] = "identity"
        response = self._pools[key].handle_request(request)
        wire.mend(response)
        return response

    def close(self) -> None:
        """Do nothing: several clients share it, and one that is closed must not end the others."""
