"""The section `[upstream]` of `fleet.toml`."""

from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator

from fleet.config.deliveries import DeadlineSeconds, WindowSeconds
from fleet.config.sections import ConfigTable


class UpstreamConfig(ConfigTable):
    """An outside gateway to take events from."""

    #: Each message is one event. It is asked for those after `last-event-id`.
    ws: str | None = None
    #: Asked in the same way while the socket is down.
    poll: str | None = None
    #: Sent to both as `Authorization: Bearer`.
    token: SecretStr | None = None
    #: Send back there what became of its events.
    outcomes: bool = True
    #: It has so long to confirm an outcome.
    window_s: WindowSeconds = 5.0
    #: An outcome that it does not take is sent again until this long after the end.
    deadline_s: DeadlineSeconds = 3600.0

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
