"""TLS to broker and store: connections that say which certificate is at fault, and why.

A certificate that does not fit is no outage: waiting does not help, and somebody must act. redis-py
raises the same for both. And since TLS 1.3 a server judges a client's certificate after the
client's handshake, so that the client may see a lost connection and not the verdict. So a
connection that fails without a reason asks once more, by a handshake after which it only listens.
"""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError

from fleet.errors import ConfigError

#: A server's verdict comes with its first answer.
VERDICT_S = 2.0
_AUTHORITY = "name the file of its authority by ssl_ca_certs"
_NAME = "address it by a name that is in it, or get one for this name"
#: By OpenSSL's number of the fault.
_REMEDIES = {
    **dict.fromkeys((2, 7, 18, 19, 20, 21), _AUTHORITY),
    **dict.fromkeys((62, 64), _NAME),
    9: "correct this machine's clock, or renew it",
    10: "renew it",
}
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


@dataclass(frozen=True, slots=True)
class TlsFault:
    """A mistake of one of two ends, and an operator's action."""

    what: str
    remedy: str


class Untrusted(AuthenticationError):
    """One end does not accept the certificate of the other."""

    def __init__(self, end: str, fault: TlsFault) -> None:
        self.sentence = f"fleet.broker_url or fleet.store_url: {end} {fault.what}: {fault.remedy}."
        super().__init__(self.sentence)


def refusal_of(error: Exception) -> str:
    """One sentence where broker and process do not accept each other; empty for other errors."""
    if isinstance(error, Untrusted):
        return error.sentence
    if isinstance(error, AuthenticationError | AuthorizationError):
        return "The broker refuses the password: put the right one into fleet.broker_url."
    if isinstance(error, NoPermissionError):
        return f"The broker's user lacks a right ({error}): give it the right by ACL SETUSER."
    return ""


class TlsConnection(redis.SSLConnection):
    """A connection of redis-py that raises Untrusted where a certificate is at fault."""

    def connect_check_health(self, *args: Any, **options: Any) -> None:
        """As in redis-py, which connects by this."""
        try:
            super().connect_check_health(*args, **options)
        except AuthenticationError:
            raise
        except (redis.ConnectionError, redis.TimeoutError) as error:
            fault = fault_of(error, self.certfile) or self._verdict(error)
            if fault is None:
                raise
            raise Untrusted(f"{self.host}:{self.port}", fault) from error

    def _verdict(self, error: Exception) -> TlsFault | None:
        if isinstance(error, redis.TimeoutError):
            return None
        return listen(
            self.host,
            self.port,
            {
                "ssl_ca_certs": self.ca_certs,
                "ssl_certfile": self.certfile,
                "ssl_keyfile": self.keyfile,
                "ssl_cert_reqs": self.cert_reqs,
                "ssl_check_hostname": self.check_hostname,
            },
        )


def listen(host: str, port: int, options: Mapping[str, Any]) -> TlsFault | None:
    """The fault that a handshake with `options` shows; None without one, and in an outage."""
    try:
        with (
            socket.create_connection((host, port), VERDICT_S) as raw,
            context_of(options).wrap_socket(raw, server_hostname=host) as secured,
        ):
            secured.recv(1)
    except OSError as error:
        return fault_of(error, options.get("ssl_certfile"))
    return None


def context_of(options: Mapping[str, Any]) -> ssl.SSLContext:
    """The context that redis-py makes of them. Raises OSError for a file that does not serve."""
    context = ssl.create_default_context()
    reqs = options.get("ssl_cert_reqs", "required")
    context.check_hostname = options.get("ssl_check_hostname", True) and reqs not in (
        "none",
        ssl.CERT_NONE,
    )
    context.verify_mode = ssl.VerifyMode[f"CERT_{reqs.upper()}"] if isinstance(reqs, str) else reqs
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    if options.get("ssl_ca_certs"):
        context.load_verify_locations(options["ssl_ca_certs"])
    return context


def check_files(key: str, options: Mapping[str, Any]) -> None:
    """Raise ConfigError for a file of certificates or keys that does not serve."""
    for name in _FILES:
        if path := options.get(name):
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise ConfigError(
                    f"{key}: {name} cannot be read ({path}: {error.strerror}): correct its path."
                ) from error
    try:
        context_of(options)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or "it is none"
        files = ", ".join(name for name in _FILES if options.get(name))
        raise ConfigError(
            f"{key}: {files} must be PEM files, and a key that of its certificate ({reason})."
        ) from error


def fault_of(error: BaseException, certificate: str | None) -> TlsFault | None:
    """The fault that an exception, or one that it followed, tells of."""
    found: BaseException | None = error
    while found and not isinstance(found, ssl.SSLError):
        found = found.__cause__ or found.__context__
    if isinstance(found, ssl.SSLCertVerificationError):
        return _of_its_certificate(found)
    reason = str(getattr(found, "reason", None) or "")
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return TlsFault("does not speak TLS", "use redis://, or the port that does")
    if "ALERT" not in reason:
        return None
    alert = reason.partition("ALERT_")[2].replace("_", " ").lower()
    if certificate:
        remedy = "name one that it accepts by ssl_certfile"
        return TlsFault(f"does not accept this client's certificate ({alert})", remedy)
    remedy = "name one by ssl_certfile and ssl_keyfile"
    return TlsFault(f"demands a certificate of its clients ({alert})", remedy)


def _of_its_certificate(error: ssl.SSLCertVerificationError) -> TlsFault:
    message = error.verify_message.rstrip(".")
    remedy = _REMEDIES.get(error.verify_code, "let one be issued that is accepted")
    return TlsFault(f"shows a certificate that is not accepted ({message})", remedy)
