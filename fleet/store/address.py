"""The addresses of broker and store: as configured, or of the server that `fleet up` started.

The embedded broker has a new password after each start of the fleet, and a client may have been
there before: its URL says, in the words of kombu and Celery, who knows the present password.
"""

import redis

from fleet.broker.embedded import read_endpoint
from fleet.broker.endpoint import BrokerFolder
from fleet.broker.tls import check_files
from fleet.config.sentinel_address import SCHEME, SentinelAddress
from fleet.config.settings import Settings, load
from fleet.config.tls import tls_options, with_tls_words, without_tls_words
from fleet.errors import BrokerUnavailable, ConfigError
from fleet.formats.redaction import mask_url

#: kombu has no `valkey://` (celery/kombu#2245); the protocol is Redis's.
_ALIASES = {"valkey": "redis", "valkeys": "rediss"}
_STORE_SCHEMES = ("redis", "rediss", "unix", "sentinel")


class KeptPassword(redis.CredentialProvider):
    """The embedded broker's password as its file holds it; asked for at each connect."""

    def __init__(self) -> None:
        """Read the settings of this process's fleet, since a URL passes no arguments."""
        self._folder = BrokerFolder(load().data_dir)

    def get_credentials(self) -> tuple[str]:
        """The password alone. Raises redis-py's ConnectionError, so that it is tried again."""
        try:
            return (self._folder.password(),)
        except (BrokerUnavailable, OSError) as error:
            raise redis.ConnectionError(str(error)) from error


def broker_url(settings: Settings) -> str:
    """The broker's URL as kombu reads it, for clients that outlive the broker.

    Raises BrokerUnavailable when it is the embedded one and that is not running.
    """
    url = plain_url(settings)
    if settings.broker_url is not None:
        return url
    # With the password too, since Flower reads nothing else.
    return f"{url}&credential_provider={__name__}:{KeptPassword.__name__}"


def plain_url(settings: Settings) -> str:
    """The broker's URL as kombu reads it, for other programs: with the present password.

    Raises BrokerUnavailable as above.
    """
    if settings.broker_url is not None:
        check_files("fleet.broker_url", tls_options(settings.broker_url))
        return kombu_url(settings.broker_url)
    endpoint = read_endpoint(settings.data_dir)
    if endpoint is None:
        raise BrokerUnavailable(
            f"No fleet is running on {settings.data_dir.absolute()}: start one with `fleet up`, "
            "or set fleet.broker_url."
        )
    return kombu_url(endpoint.url)


def store_url(settings: Settings) -> str:
    """The URL of ledger, leases and bus as `open_store` reads it.

    Raises ConfigError when neither setting names a Redis or Valkey, BrokerUnavailable as above.
    """
    given = settings.store_url or settings.broker_url
    if given and given.startswith(SCHEME):
        return given
    if settings.store_url:
        check_files("fleet.store_url", tls_options(settings.store_url))
    url = kombu_url(settings.store_url) if settings.store_url else broker_url(settings)
    if url.startswith("redis+socket://"):
        url = "unix://" + url.removeprefix("redis+socket://").replace("virtual_host=", "db=")
    if url.partition("://")[0] not in _STORE_SCHEMES:
        raise ConfigError(
            "fleet.store_url: must be set to a Redis or Valkey when the broker is neither."
        )
    return url


def broker_identity(settings: Settings) -> str:
    """Names broker and store, without a password; `embedded` for the server of the data folder."""
    if settings.broker_url is None:
        return "embedded"
    urls = [settings.broker_url, settings.store_url or ""]
    return " ".join(
        mask_url(without_tls_words(one)) for url in urls for one in url.split(";") if one
    )


def results_url(settings: Settings) -> str:
    """The URL of the store as Celery's result backend reads it; `tls_options` go beside it.

    Raises as `store_url`.
    """
    return without_tls_words(kombu_url(store_url(settings)))


def sentinel_options(url: str | None) -> dict[str, str]:
    """Transport options of kombu and Celery for the address of a server behind Sentinel."""
    if not url or not url.startswith(SCHEME):
        return {}
    return {"master_name": SentinelAddress.read(url).master_name}


def wakeups_in_store(settings: Settings) -> bool:
    """True when the broker is the store, so that a script can push the wake-up itself."""
    return settings.store_url is None or kombu_url(settings.store_url) == (
        kombu_url(settings.broker_url) if settings.broker_url else None
    )


def kombu_url(url: str) -> str:
    """A URL in the words of kombu and Celery; kombu trusts every certificate unless told."""
    if url.startswith(SCHEME):
        return SentinelAddress.read(url).kombu_url
    scheme, mark, rest = url.partition("://")
    if scheme == "unix":
        return "redis+socket://" + rest.replace("db=", "virtual_host=")
    return with_tls_words(_ALIASES.get(scheme, scheme) + mark + rest)
