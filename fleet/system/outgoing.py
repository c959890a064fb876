"""The way of a call out of this machine: proxies and authorities that the environment names.

Libraries read these variables when a client is made, and one that they cannot use would end the
process. Here it fails the calls that would use it, and no others.
"""

import ipaddress
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

_SCHEMES = ("http", "https", "socks5", "socks5h")
#: Where keys of connections are written, for people who listen in on their own.
_KEY_LOG = "SSLKEYLOGFILE"
_LIKE = {"ws": "http", "wss": "https"}


class UnusableVariable(OSError):
    """A variable of the environment that a call would need cannot be used; names it."""


def client_options(url: str) -> dict[str, Any]:
    """The arguments of an httpx client for `url` alone. Raises UnusableVariable."""
    return {"trust_env": False, "proxy": proxy_for(url), "verify": authorities(url)}


def proxy_for(url: str, socks: str = "socksio") -> str | None:
    """The proxy for a URL, None for a direct call. Raises UnusableVariable.

    `socks` is the module that the caller's library needs for a SOCKS proxy.
    """
    place, found = urlsplit(url), getproxies()
    if _is_exempt(place.scheme, str(place.hostname), place.port, found.get("no", "")):
        return None
    for name in (_LIKE.get(place.scheme, place.scheme), "all"):
        if found.get(name):
            return _checked(name, found[name], socks)
    return None


def authorities(url: str) -> ssl.SSLContext:
    """The authorities for a server: of SSL_CERT_FILE, of SSL_CERT_DIR, or those of the web.

    Raises UnusableVariable for a URL with TLS.
    """
    if urlsplit(url).scheme not in ("https", "wss"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody
    _check_key_log()
    return _trusted()


def unusable_variables() -> list[str]:
    """A sentence for each variable that calls would fail by."""
    proxies = getproxies()
    checks: list[Callable[[], object]] = [_check_key_log, _trusted]
    checks += [
        partial(_checked, name, proxies[name], "socksio")
        for name in ("all", "https", "http")
        if proxies.get(name)
    ]
    told = []
    for check in checks:
        try:
            check()
        except UnusableVariable as error:
            told.append(str(error))
    return list(dict.fromkeys(told))


@contextmanager
def unusable_hidden() -> Iterator[None]:
    """Take what cannot be used out of the environment in this block, in which libraries read it.

    For a block in one thread, such as imports before a fork.
    """
    names = [told.partition(":")[0] for told in unusable_variables()]
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _check_key_log() -> None:
    try:
        if file := os.environ.get(_KEY_LOG):
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).keylog_filename = file
    except OSError as error:
        raise _unusable(_KEY_LOG, error) from error


def _unusable(variable: str, error: OSError) -> UnusableVariable:
    return UnusableVariable(
        f"{variable}: the file cannot be used ({error.strerror or error}); correct or unset it"
    )


def _trusted() -> ssl.SSLContext:
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _context(file: str | None, folder: str | None) -> ssl.SSLContext:
    import certifi

    try:
        if not file and folder:
            return ssl.create_default_context(capath=folder)
        return ssl.create_default_context(cafile=file or certifi.where())
    except OSError as error:  # also SSLError
        # Only the file of keys has a name here.
        raise _unusable(_KEY_LOG if error.filename else "SSL_CERT_FILE", error) from error


def _checked(name: str, value: str, socks: str) -> str:
    """A proxy's address. Raises UnusableVariable without its value, which may hold a password."""
    variable = next((v for v in (f"{name}_proxy", f"{name}_PROXY") if v in os.environ), "")
    variable = variable or f"{name.upper()}_PROXY"
    address = value if "://" in value else f"http://{value}"
    if address.startswith("socks://"):
        address = address.replace("socks", "socks5", 1)
    try:
        place = urlsplit(address)
        fits = place.scheme in _SCHEMES and bool(place.hostname) and place.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise UnusableVariable(f"{variable}: is not the address of a proxy; correct or unset it")
    if address.startswith("socks") and find_spec(socks) is None:
        raise UnusableVariable(
            f"{variable}: a SOCKS proxy needs the package {socks}; install it, or unset this"
        )
    return address


def _is_exempt(scheme: str, host: str, port: int | None, entries: str) -> bool:
    """True for a host that NO_PROXY names: by its name, a domain, an address or a network."""
    host = host.lower().rstrip(".")
    for entry in (one.strip().lower() for one in entries.split(",")):
        kind, colon, rest = entry.rpartition("://")
        if colon and kind not in (scheme, "all"):
            continue
        if rest == "*" or _is_in_network(host, rest):
            return True
        name, _, of_port = rest.partition(":")
        domain = name.lstrip("*").lstrip(".")
        if of_port in ("", str(port)) and domain and f".{host}".endswith(f".{domain}"):
            return True
    return False


def _is_in_network(host: str, entry: str) -> bool:
    try:
        network = ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False
