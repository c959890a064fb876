"""Where the gateway is, and who it takes us for."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from fleet.config.upstream import UpstreamConfig
from fleet.store import keys


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """The configured gateway. Its addresses may hold secrets: only `name` is for logs."""

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
        """Host and port; also the source of events that name none."""
        return urlsplit(self.ws or self.poll or "").netloc

    @property
    def digest(self) -> str:
        """Names its place in the store; another gateway's ids mean nothing to this one."""
        return keys.event_digest(f"{self.ws or ''}\n{self.poll or ''}")

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def after(url: str, cursor: str) -> str:
    """`url`, asking for what came after `cursor`; all of it without one."""
    return str(httpx.URL(url).copy_merge_params({"last-event-id": cursor})) if cursor else url
