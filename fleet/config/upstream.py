"""The section `[upstream]` of `fleet.toml`."""

from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from fleet.config.deliveries import DeadlineSeconds, WindowSeconds
from fleet.config.fields import ConfigTable


class UpstreamConfig(ConfigTable):
    """An outside gateway to take events from."""

    ws: str | None = Field(
        default=None,
        description="The gateway's `wss://` or `ws://` address; each message is one event.",
    )
    poll: str | None = Field(
        default=None,
        description="The gateway's `https://` or `http://` address, polled while the socket is "
        "down.",
    )
    token: SecretStr | None = Field(
        default=None, description="Sent to both addresses as `Authorization: Bearer`."
    )
    outcomes: bool = Field(
        default=True, description="Send the outcomes of its events back to the gateway."
    )
    window_s: WindowSeconds = Field(
        default=5.0, description="How long the gateway has to confirm an outcome."
    )
    deadline_s: DeadlineSeconds = Field(
        default=3600.0,
        description="A refused outcome is sent again until this long after the dispatch ended.",
    )

    @field_validator("ws")
    @classmethod
    def _is_socket(cls, value: str | None) -> str | None:
        return _plain_address(value, ("ws", "wss"))

    @field_validator("poll")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        return _plain_address(value, ("http", "https"))

    @field_validator("token")
    @classmethod
    def _is_header(cls, value: SecretStr | None) -> SecretStr | None:
        text = "x" if value is None else value.get_secret_value()
        if not text or not all("!" <= char <= "~" for char in text):
            raise ValueError("must be printable ASCII characters without a space")
        return value


def _plain_address(value: str | None, schemes: tuple[str, str]) -> str | None:
    """An address of one of two schemes, without a password. Raises ValueError."""
    if value is None:
        return None
    import httpx  # only where there is an address to check: it is slow to load

    wish = f"must be a URL that begins with {schemes[1]}:// or {schemes[0]}://"
    try:
        place = urlsplit(value)
        whole = place.scheme in schemes and bool(place.hostname) and place.port != 0
        httpx.URL(value)
    except (ValueError, httpx.InvalidURL):
        raise ValueError(wish) from None
    if not whole or place.fragment or not value.isprintable() or " " in value:
        raise ValueError(wish)
    if "@" in place.netloc:
        raise ValueError("must hold no user and no password: put a secret into upstream.token")
    return value
