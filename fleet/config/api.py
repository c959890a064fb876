"""The section `[api]` of `fleet.toml`."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator

from fleet.config.sections import ConfigTable, is_url, number


class ApiConfig(ConfigTable):
    """The HTTP side; port 0 takes a free one."""

    host: str = "127.0.0.1"
    #: Serve without tokens on an address that others can reach: only where the network lets nobody
    #: but the operator in, as a container published on loopback does.
    trusted_network: bool = False
    #: Requests, and events of a batch, that one token may send each second to one API process.
    token_rate_per_s: Annotated[float, BeforeValidator(number), Field(gt=0, le=1e6)] = 200.0
    port: Annotated[int, BeforeValidator(number), Field(ge=0, le=65535)] = 8700
    #: Where others reach it, for what they call back; absent: where it listens.
    public_url: str | None = None

    @field_validator("public_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        place = urlsplit(value)
        if not is_url(value) or "@" in place.netloc or place.query or place.fragment:
            raise ValueError(
                "must be a URL that begins with https:// or http://, no password in it"
            )
        return value.rstrip("/")
