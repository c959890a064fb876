"""Where broker and store are: as configured, or the server that `fleet up` started."""

from fleet.broker.embedded import read_endpoint
from fleet.errors import BrokerUnavailable, ConfigError
from fleet.settings import Settings

#: kombu has no `valkey://` (celery/kombu#2245); the protocol is Redis's.
_ALIASES = {"valkey": "redis", "valkeys": "rediss"}
_STORE_SCHEMES = ("redis", "rediss", "unix")


def broker_url(settings: Settings) -> str:
    """The broker's URL as kombu reads it.

    Raises BrokerUnavailable when it is the embedded one and that is not running.
    """
    if settings.broker_url is not None:
        return kombu_url(settings.broker_url)
    endpoint = read_endpoint(settings.data_dir)
    if endpoint is None:
        raise BrokerUnavailable(
            f"No fleet is running on {settings.data_dir}: start one with `fleet up`, "
            "or set fleet.broker_url."
        )
    return str(endpoint.url)


def store_url(settings: Settings) -> str:
    """The URL of ledger, leases and bus as redis-py reads it.

    Raises ConfigError when neither setting names a Redis or Valkey, BrokerUnavailable as above.
    """
    url = kombu_url(settings.store_url) if settings.store_url else broker_url(settings)
    if url.startswith("redis+socket://"):
        url = "unix://" + url.removeprefix("redis+socket://").replace("virtual_host=", "db=")
    if url.partition("://")[0] not in _STORE_SCHEMES:
        raise ConfigError(
            "fleet.store_url: must be set to a Redis or Valkey when the broker is neither."
        )
    return url


def results_url(settings: Settings) -> str:
    """The URL of the store as Celery's result backend reads it. Raises as `store_url`."""
    return kombu_url(store_url(settings))


def rings_in_store(settings: Settings) -> bool:
    """True when the broker is the store, so that a script can ring the doorbell itself."""
    return settings.store_url is None or kombu_url(settings.store_url) == (
        kombu_url(settings.broker_url) if settings.broker_url else None
    )


def kombu_url(url: str) -> str:
    """A URL in the words of kombu and Celery."""
    scheme, mark, rest = url.partition("://")
    if scheme == "unix":
        return "redis+socket://" + rest.replace("db=", "virtual_host=")
    return _ALIASES.get(scheme, scheme) + mark + rest
