"""The checks of a configuration and its surroundings; each finding has a remedy.

Nothing is changed. `fleet.broker.audit` checks the server, this module everything else.
"""

import resource
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import redis

from fleet.broker.audit import Finding, audit
from fleet.broker.binary import find_server
from fleet.broker.room import lack_of_room
from fleet.broker.tls import refusal_of
from fleet.config.foreign_environment import not_settings, of_celery, of_flower
from fleet.config.settings import Settings
from fleet.config.tls import SECURE, tls_options
from fleet.errors import BrokerRefusal, BrokerUnavailable
from fleet.formats.redaction import mask_url
from fleet.intake.spool.spool import Spool
from fleet.ops.alerts.machine import spool_conditions
from fleet.ops.alerts.reading import conditions
from fleet.ops.doctor import endpoints, startup
from fleet.ops.doctor.permissions import secret_files
from fleet.store import Store, open_store
from fleet.store.address import plain_url, store_url
from fleet.store.wakeup import publisher_of
from fleet.system.data_dir_lock import is_up
from fleet.system.outgoing import unusable_variables
from fleet.version import VERSION
from fleet.worker import shutdown_grace

#: Leases and deadlines use the server's clock; people compare its times with their own.
SKEW_MAX_S = 2.0
#: A worker opens about 40 files, the API one for each client.
FILES_MIN = 1024
DISK_MIN_BYTES = 1 << 30
#: A log and the one before it, of one process.
LOG_MIN_BYTES = 10_000_000
#: A store that is silent for so long does not answer.
STORE_TIMEOUT_S = 2.0
_ORDER = ("error", "warning", "info")


class _OneTry:
    """A `CallGuard` that lets every call through: behind a guard no timeout is waited for twice."""

    def check(self) -> None:
        """Nothing is known against it."""

    def record_error(self, error: Exception) -> None:
        """Leave it to the caller."""


def store_of(settings: Settings) -> Store:
    """A store for an examination, which learns soon that the broker is away."""
    return open_store(
        store_url(settings),
        socket_timeout_s=STORE_TIMEOUT_S,
        connect_timeout_s=STORE_TIMEOUT_S,
        guard=_OneTry(),
    )


def examine(settings: Settings, get_store: Callable[[], Store]) -> list[Finding]:
    """All findings, the worst first; `get_store` may raise BrokerUnavailable."""
    found = [Finding("info", f"fleet {VERSION}"), *_store(settings, get_store)]
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _encryption,
        endpoints.check_endpoints,
        _times,
        _files_open,
        _disk,
        _spool,
        secret_files,
        _exposure,
        startup.findings,
        _models,
        _prices,
        _tools,
        _foreign,
    )
    for check in checks:
        found += check(settings)
    return sorted(found, key=lambda finding: (not finding.loses_data, _ORDER.index(finding.level)))


def _store(settings: Settings, get_store: Callable[[], Store]) -> Iterator[Finding]:
    try:
        store = get_store()
        before = time.monotonic()
        seconds, micros = store.client.time()
        first_s = time.monotonic() - before
        skew_s = abs(datetime.now(UTC).timestamp() - seconds - micros / 1e6)
        # The first command connects; the second measures the round trip.
        store.client.ping()
        rtt_s = time.monotonic() - before - first_s
        yield from audit(store.client)
        if lack := lack_of_room(store.client, sum(map(settings.processes, settings.workers_here))):
            yield Finding("warning", *lack)
        yield from _conditions(store, settings)
    except (BrokerUnavailable, redis.RedisError, OSError) as error:
        if settings.broker_url is None and not is_up(settings.data_dir):
            yield from _not_started()
            return
        refusal = refusal_of(error) or (str(error) if isinstance(error, BrokerRefusal) else "")
        fault, _, remedy = refusal.rstrip(".").rpartition(": ")
        fault, remedy = (
            fault or mask_url(str(error)),
            remedy or "start the broker, or correct its URL",
        )
        yield Finding("error", fault, remedy)
        return
    if skew_s > SKEW_MAX_S + first_s:
        fault = f"this machine's clock and the store's differ by {skew_s:.1f} s"
        yield Finding("warning", fault, "run NTP on both: times in logs and on the bus disagree")
    yield from _link(settings, rtt_s)


def _not_started() -> Iterator[Finding]:
    """The embedded broker before the first `fleet up`, and after the last."""
    try:
        server = find_server()
    except BrokerUnavailable as error:
        fault, _, remedy = str(error).rpartition(". Install")
        yield Finding("error", fault, f"install{remedy.rstrip('.')}")
        return
    version = ".".join(map(str, server.version))
    yield Finding("info", f"no fleet runs here; `fleet up` starts the broker, version {version}")


def _encryption(settings: Settings) -> Iterator[Finding]:
    for key in ("broker_url", "store_url"):
        text = getattr(settings, key) or ""
        url = urlsplit(text)
        plain = url.scheme not in ("", *SECURE, "amqps", "unix")
        if plain and url.hostname not in (None, "localhost", "127.0.0.1", "::1"):
            fault = f"the connection to {url.hostname} is not encrypted"
            yield Finding("warning", fault, "use rediss:// unless the network is private")
        if tls_options(text).get("ssl_cert_reqs", "required") != "required":
            fault = f"fleet.{key} accepts the certificate of anybody"
            yield Finding("warning", fault, "take ssl_cert_reqs out, and name ssl_ca_certs")


def _link(settings: Settings, rtt_s: float) -> Iterator[Finding]:
    # A renewal times out after a sixth of the lease, and needs a round trip or two.
    if rtt_s > settings.lease_ttl_s / 18:
        fault = (
            f"the store answered after {rtt_s * 1000:.0f} ms: with fleet.lease_ttl_s = "
            f"{settings.lease_ttl_s:g} agents would lose their leases"
        )
        yield Finding("warning", fault, f"set it to {max(10, round(rtt_s * 40))} or more")


def _conditions(store: Store, settings: Settings) -> Iterator[Finding]:
    """The conditions of alerts, without their delay; offline agents in one finding."""
    found = conditions(store, settings, wakeups=publisher_of(settings))
    offline = [condition.agent for condition in found if condition.name == "agent_offline"]
    for condition in found:
        if condition.name != "agent_offline":
            prefix = f"{condition.agent}: " if condition.agent else ""
            yield Finding("warning", f"{prefix}{condition.reason}", condition.remedy)
    if offline:
        more = f" and {len(offline) - 5} more" if len(offline) > 5 else ""
        fault = f"nobody works for {', '.join(offline[:5])}{more}"
        yield Finding("warning", fault, "start `fleet host`, or resume them")


def _spool(settings: Settings) -> Iterator[Finding]:
    for condition in spool_conditions(Spool(settings), settings.spool):
        yield Finding("warning", condition.reason, condition.remedy)


def _times(settings: Settings) -> Iterator[Finding]:
    if sentence := shutdown_grace.warning(settings):
        fault, _, remedy = sentence.rstrip(".").rpartition(": ")
        yield Finding("warning", fault, remedy)


def _files_open(settings: Settings) -> Iterator[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES_MIN:
        fault = f"a process may open {soft} files, and each client of the API is one"
        yield Finding("warning", fault, f"ulimit -n {FILES_MIN * 4}, or LimitNOFILE= in the unit")


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    if not folder.exists():
        return
    if (kind := _kind_of_disk(folder)) in ("tmpfs", "ramfs"):
        fault = f"{folder} is in memory ({kind}): a restart of the machine forgets what it holds"
        remedy = "set fleet.data_dir to a folder on a disk"
        # With a broker elsewhere only spooled events would be lost.
        yield Finding("warning", fault, remedy, settings.broker_url is None)
    free = shutil.disk_usage(folder).free
    if settings.broker_url is None and free < DISK_MIN_BYTES:
        fault = f"{folder} has {free / 2**20:.0f} MiB left: a full disk stops the broker"
        yield Finding("warning", fault, "make room, or set fleet.data_dir to another disk")
    logs = folder / "log"
    if logs.exists() and (left := shutil.disk_usage(logs).free) < LOG_MIN_BYTES:
        fault = f"{logs} has {left / 1024:.0f} KiB left: what does not fit is not in the logs"
        yield Finding("warning", fault, "make room")


def _kind_of_disk(folder: Path) -> str:
    """The kind of file system of `folder`; empty where the system does not say."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    resolved = folder.resolve()
    mounts = [line.split()[1:3] for line in lines]
    above = [(place, kind) for place, kind in mounts if resolved.is_relative_to(place)]
    return max(above, key=lambda mount: len(mount[0]), default=("", ""))[1]


def _exposure(settings: Settings) -> Iterator[Finding]:
    if settings.api.trusted_network:
        fault = "the API answers everybody in its network (api.trusted_network)"
        yield Finding("warning", fault, "let only the operator into that network")
    if settings.flower.port and (address := _reachable_from_outside(settings.flower.port)):
        fault = f"Flower answers on {address}, and it asks for no login"
        yield Finding("warning", fault, "start it with --address=127.0.0.1, or behind a login")


def _reachable_from_outside(port: int) -> str | None:
    """An address of this machine, other than loopback, where something listens on `port`."""
    try:
        # No packet is sent: this only finds the address that a connection would come from.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            own = probe.getsockname()[0]
        socket.create_connection((own, port), 0.5).close()
    except OSError:
        return None
    return None if own.startswith("127.") else f"{own}:{port}"


def _models(settings: Settings) -> Iterator[Finding]:
    if any(agent.runner == "llm" for agent in settings.agents.values()):
        # By name, because `fleet` never imports `tasks`.
        for fault in import_module("tasks.model.preflight").obstacles(settings.agents):
            yield Finding("warning", fault, "correct the model, its key or its address")


def _prices(settings: Settings) -> Iterator[Finding]:
    limited = {n: agent for n, agent in settings.agents.items() if agent.budget.usd_per_day}
    if not limited:
        return
    # By name, because `fleet` never imports `tasks`.
    prices = import_module("tasks.model.prices")
    for name, agent in limited.items():
        for model in prices.unpriced(agent):
            yield Finding("warning", prices.fault(name, model), "set budget.tokens_per_day for it")


def _tools(settings: Settings) -> Iterator[Finding]:
    if any(tool.is_server for tool in settings.tools.values()):
        # Imported only here: the SDK is slow to load.
        yield from import_module("fleet.ops.doctor.tool_servers").examine(settings)


def _foreign(settings: Settings) -> Iterator[Finding]:
    """Variables of the environment that the fleet ignores."""
    if names := of_celery():
        fault = f"{', '.join(names)}: set, and without effect on the fleet"
        yield Finding(
            "info", fault, "set fleet.broker_url where the fleet is to use another broker"
        )
    for sentence in unusable_variables():
        fault, _, remedy = sentence.rpartition("; ")
        yield Finding("warning", f"{fault}; calls that need it fail", remedy)
    if names := of_flower():
        fault = f"{', '.join(names)}: set, and without effect on the fleet's Flower"
        yield Finding("info", fault, "use [flower] in fleet.toml")
    if names := not_settings(type(settings).model_fields):
        fault = f"{', '.join(names)}: of something else called fleet; these set nothing here"
        yield Finding("info", fault)


def address(settings: Settings) -> str:
    """The examined broker's address, without its password."""
    try:
        return mask_url(plain_url(settings))
    except BrokerUnavailable:
        return "embedded, not running"
