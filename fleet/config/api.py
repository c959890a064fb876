"""The section `[api]` of `fleet.toml`."""

import re
import socket
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator

from fleet.config.fields import ConfigTable, Names, Port, is_url, number

_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")


class ApiConfig(ConfigTable):
    """The HTTP side."""

    host: str = Field(default="127.0.0.1", description="The address on which the API listens.")
    #: Only where the network lets in nobody except the operator, as a container published on
    #: loopback does.
    trusted_network: bool = Field(
        default=False,
        description="Allow an address that others can reach even without a token.",
    )
    token_rate_per_s: Annotated[float, BeforeValidator(number), Field(gt=0, le=1e6)] = Field(
        default=200.0,
        description="Requests and events a second of one token, where `--rate` set no other limit.",
    )
    connections_max: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description="Open connections of clients in all; the limit of open files holds too.",
    )
    connections_per_address: int = Field(
        default=2048,
        ge=1,
        le=1_000_000,
        description="Open connections of one address, that of a proxy too.",
    )
    port: Port = Field(default=8700, description="The API's port; 0 takes a free one.")
    allowed_hosts: Names = Field(
        default=(),
        description="Further names under which a browser may reach API and Flower without a token, "
        "such as `host.docker.internal`.",
    )
    public_url: str | None = Field(
        default=None,
        description="Where services reach the API to call back; without it, where it listens.",
    )

    @property
    def names(self) -> frozenset[str]:
        """The names, besides addresses and `localhost`, of which pages are served to everybody."""
        public = urlsplit(self.public_url or "").hostname
        found = {self.host, socket.gethostname(), public or "", *self.allowed_hosts}
        return frozenset(name.lower() for name in found if name)

    @field_validator("allowed_hosts")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [name for name in value if not _NAME.fullmatch(name)]:
            raise ValueError(f"{wrong[0]!r} must be a name, with no port and no wildcard in it")
        return value

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
