"""The configured remote ends: they must accept a connection, and their certificates must last."""

import socket
import ssl
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from fleet.broker.audit import Finding
from fleet.broker.tls import context_of, fault_of
from fleet.config.settings import Settings
from fleet.config.tls import tls_options
from fleet.system.outgoing import UnusableVariable, proxy_for

CONNECT_TIMEOUT_S = 3.0
CERTIFICATE_DAYS_MIN = 14
#: How many are checked at once.
AT_ONCE = 8
#: Schemes with TLS, and their default ports.
_SECURE = {"https": 443, "wss": 443, "rediss": 6379, "valkeys": 6379, "amqps": 5671}
_PLAIN = {"http": 80, "ws": 80}


@dataclass(frozen=True, slots=True)
class End:
    """A remote end; ends at the same host and port are checked once."""

    key: str  #: its key in the configuration
    host: str
    port: int
    secure: bool
    options: Mapping[str, Any] = field(default_factory=dict)  #: of TLS, from a broker's URL


def check_endpoints(settings: Settings) -> Iterator[Finding]:
    """The findings about all ends, each host and port once."""
    places: dict[tuple[str, int], End] = {}
    for end in _ends(settings):
        places.setdefault((end.host, end.port), end)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for found in pool.map(_examine, places.values()):
            yield from found


def _ends(settings: Settings) -> Iterator[End]:
    for key in ("broker_url", "store_url"):
        # The check of the store finds out if the broker answers.
        yield from _end(f"fleet.{key}", getattr(settings, key), secure_only=True)
    for name, agent in settings.agents.items():
        if agent.runner == "http":
            yield from _end(f"agents.{name}.url", agent.url)
        if agent.runner == "llm":
            # By name, because `fleet` never imports `tasks`. It reports an unreachable host itself.
            preflight = import_module("tasks.model.preflight")
            tiers_of = import_module("tasks.model.tiers").tiers_of
            for tier in tiers_of(agent.model or "", agent.fallbacks, agent.params):
                place = preflight.address(tier.model, tier.params)
                yield from _end(f"agents.{name}: {tier.model}", place, secure_only=True)
    for name, delivery in settings.deliveries.items():
        if delivery.webhook:
            yield from _end(f"deliveries.{name}.webhook", delivery.webhook.get_secret_value())
    for name, tool in settings.tools.items():
        yield from _end(f"tools.{name}.url", tool.url)
    if settings.alerts.webhook:
        yield from _end("alerts.webhook", settings.alerts.webhook.get_secret_value())
    yield from _end("upstream.ws", settings.upstream.ws)
    yield from _end("upstream.poll", settings.upstream.poll)


def _end(key: str, url: str | None, *, secure_only: bool = False) -> Iterator[End]:
    place = urlsplit(url or "")
    secure = place.scheme in _SECURE
    if not place.hostname or not (secure or (place.scheme in _PLAIN and not secure_only)):
        return
    # Behind a proxy a direct connection proves nothing.
    try:
        if proxy_for(url or ""):
            return
    except UnusableVariable:  # has its own finding
        return
    port = place.port or (_SECURE | _PLAIN)[place.scheme]
    yield End(key, place.hostname, port, secure, tls_options(url or ""))


def _examine(end: End) -> list[Finding]:
    try:
        with socket.create_connection((end.host, end.port), CONNECT_TIMEOUT_S) as raw:
            return _certificate(end, raw) if end.secure else []
    except ssl.SSLError as error:
        if end.options and (found := fault_of(error, end.options.get("ssl_certfile"))):
            what = f"{end.key}: {end.host}:{end.port} {found.what}"
            return [Finding("warning", what, found.remedy)]
        reason = getattr(error, "verify_message", "") or error.reason or "TLS fails"
        fault = f"{end.key}: the certificate of {end.host} is not accepted ({reason})"
        remedy = "renew it, or make its authority known to this machine (SSL_CERT_FILE)"
        return [Finding("warning", fault, remedy)]
    except OSError as error:
        fault = f"{end.key}: {end.host}:{end.port} cannot be reached ({error.strerror or error})"
        return [Finding("warning", fault, "start it, or correct its address")]


def _certificate(end: End, raw: socket.socket) -> list[Finding]:
    with context_of(end.options).wrap_socket(raw, server_hostname=end.host) as secured:
        certificate: dict[str, Any] = secured.getpeercert() or {}
    if not certificate:  # asked for by nobody
        return []
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    days = (ends - datetime.now(UTC).timestamp()) / 86400
    if days >= CERTIFICATE_DAYS_MIN:
        return []
    fault = f"{end.key}: the certificate of {end.host} ends in {days:.0f} days"
    return [Finding("warning", fault, "renew it")]
