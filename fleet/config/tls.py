"""TLS to broker and store: the words for it in a URL, `rediss://HOST/0?ssl_ca_certs=FILE&...`.

redis-py, kombu, Celery's result backend and Flower each read such a URL in a way of their own:
without a word kombu trusts every certificate, the backend refuses, and Flower reads no words. So
the words are read here only, and each library is given what it understands.
"""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from fleet.errors import ConfigError

SECURE = ("rediss", "valkeys")
#: File names, absolute or from the folder of the process.
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_VALUES: dict[str, dict[str, Any]] = {
    "ssl_cert_reqs": {name: name for name in ("required", "optional", "none")},
    "ssl_check_hostname": {"true": True, "false": False},
}
_KNOWN = (*FILES, *_VALUES)


def check_tls(key: str, url: str) -> None:
    """Raise ConfigError for a word that would have no effect; the sentence begins with `key`."""
    scheme = url.partition("://")[0]
    if scheme not in (*SECURE, "redis", "valkey"):
        return
    words = {name: value for name, value in _query(url) if name.startswith("ssl")}
    if words and scheme not in SECURE:
        raise ConfigError(f"{key}: {next(iter(words))} needs a URL with rediss://.")
    for name, value in words.items():
        if name not in _KNOWN:
            raise ConfigError(f"{key}: there is no {name}; known are {', '.join(_KNOWN)}.")
        if name in _VALUES and _plain(value) not in _VALUES[name]:
            raise ConfigError(f"{key}: {name} must be one of {', '.join(_VALUES[name])}.")
    if "ssl_keyfile" in words and "ssl_certfile" not in words:
        raise ConfigError(f"{key}: ssl_keyfile needs ssl_certfile, the certificate of this key.")


def tls_options(url: str) -> dict[str, Any]:
    """The arguments of redis-py for what a URL says about TLS; empty without TLS."""
    if urlsplit(url).scheme not in SECURE:
        return {}
    words = {name: value for name, value in _query(url) if name in _KNOWN}
    values = {
        name: _VALUES[name].get(_plain(value), value) if name in _VALUES else value
        for name, value in words.items()
    }
    return {"ssl_cert_reqs": "required", **values}


def without_tls_words(url: str) -> str:
    """The URL without them, for a library that is given the options beside it."""
    if not tls_options(url):
        return url
    rest = [(name, value) for name, value in _query(url) if name not in _KNOWN]
    base = url.partition("?")[0]
    return f"{base}?{urlencode(rest)}" if rest else base


def with_tls_words(url: str) -> str:
    """The URL with all of them spelt out, for a library that reads nothing else."""
    options = tls_options(url)
    if not options:
        return url
    words = {
        name: str(value).lower() if name in _VALUES else value for name, value in options.items()
    }
    base = without_tls_words(url)
    return f"{base}{'&' if '?' in base else '?'}{urlencode(words, safe='/')}"


def _query(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


def _plain(value: str) -> str:
    """`CERT_REQUIRED` is Celery's name for `required`."""
    return value.lower().removeprefix("cert_")
