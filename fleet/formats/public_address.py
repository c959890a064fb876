"""Addresses that an outcome may go to: a name is resolved once, and its addresses are checked.

A name of a private address, now or at a second query, would let a receiver's operator reach into
this network (server-side request forgery).
"""

import ipaddress
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Translators of IPv4 (RFC 6052): the last four bytes are the address reached.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: IPv4-compatible (RFC 4291), deprecated, and still an IPv4 address to some systems.
_COMPATIBLE = ipaddress.ip_network("::/96")


class ForbiddenAddress(Exception):
    """The receiver's address is not allowed."""


def is_public(address: Address) -> bool:
    """True for an address on the internet: not loopback, private, link-local, shared (CGNAT),
    multicast or reserved, nor any of these inside an IPv6 address that stands for an IPv4 one.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    if address in _NAT64 or address in _COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def literal(host: str) -> Address | None:
    """The address that `host` spells out; None for a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def resolve(host: str, port: int, *, allow_private: bool = False) -> list[str]:
    """The addresses to connect to, best first.

    Raises OSError for an unknown name, and ForbiddenAddress where any address is not public: the
    choice among several must not be luck.
    """
    rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found = [str(row[4][0]) for row in rows]
    if not allow_private:
        for text in found:
            address = literal(text)
            if address is None or not is_public(address):
                raise ForbiddenAddress(
                    "its address is not a public one; set allow_private to allow it"
                )
    return found
