"""The gateway's addresses, and our credentials there."""

from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import httpx

from fleet.config.upstream import UpstreamConfig
from fleet.store import keys
from fleet.system.outgoing import UnusableVariable, client_options


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """The configured gateway. Its addresses may hold secrets: log only `name`."""

    ws: str | None
    poll: str | None
    token: str | None

    @classmethod
    def of(cls, config: UpstreamConfig) -> "GatewayAddress | None":
        """None where no gateway is configured."""
        if config.ws is None and config.poll is None:
            return None
        token = config.token.get_secret_value() if config.token else None
        return cls(config.ws, config.poll, token)

    @property
    def name(self) -> str:
        """Host and port; also the source of events without a source."""
        return urlsplit(self.ws or self.poll or "").netloc

    @property
    def digest(self) -> str:
        """The key of its cursor in the store; each gateway has ids of its own."""
        return keys.event_digest(f"{self.ws or ''}\n{self.poll or ''}")

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def client(self, timeout_s: float) -> httpx.AsyncClient:
        """A client for its polled address."""
        try:
            options = client_options(self.poll or "")
        except UnusableVariable as error:
            options = {"transport": httpx.MockTransport(partial(_refuse, error))}
        return httpx.AsyncClient(timeout=timeout_s, headers=self.headers, **options)


async def _refuse(error: UnusableVariable, _: httpx.Request) -> httpx.Response:
    raise error


def after(url: str, cursor: str) -> str:
    """`url` with a query for events after `cursor`, or for all events without a cursor."""
    return str(httpx.URL(url).copy_merge_params({"last-event-id": cursor})) if cursor else url
