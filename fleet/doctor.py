"""What stands between a configuration and its promises: each finding with its remedy.

Looks and changes nothing. `fleet.broker.audit` looks at the server; this module at all else.
"""

import resource
import shutil
import socket
import ssl
import stat
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from urllib.parse import urlsplit

import redis

from fleet import grace, health
from fleet.api.reach import others_can_reach
from fleet.broker.audit import Finding, audit
from fleet.errors import BrokerUnavailable, ConfigError
from fleet.redact import mask_url
from fleet.settings import Settings, find_file
from fleet.spool.shelter import Shelter
from fleet.store import Store
from fleet.store.address import broker_url
from fleet.version import VERSION

#: Leases and deadlines go by the server's clock; people compare its times with their own.
SKEW_MAX_S = 2.0
#: A worker has about 40 files open, the API one for each client.
FILES_MIN = 1024
DISK_MIN_BYTES = 1 << 30
CERTIFICATE_DAYS_MIN = 14
CONNECT_TIMEOUT_S = 3.0
_ORDER = ("error", "warning", "info")


def examine(settings: Settings, opened: Callable[[], Store]) -> list[Finding]:
    """All findings, the worst first; `opened` gives the store, or raises BrokerUnavailable."""
    found = [Finding("info", f"fleet {VERSION}"), *_store(settings, opened)]
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        *(_certificate, _times, _files_open, _disk, _secrets, _exposure, _callbacks),
        *(_models, _programs, _tools),
    )
    for check in checks:
        found += check(settings)
    return sorted(found, key=lambda finding: (not finding.loses_data, _ORDER.index(finding.level)))


def _store(settings: Settings, opened: Callable[[], Store]) -> Iterator[Finding]:
    try:
        store = opened()
        before = time.monotonic()
        seconds, micros = store.client.time()
        rtt_s = time.monotonic() - before
        yield from audit(store.client)
        document = health.document(lambda: store, settings, Shelter.of(settings))
    except (BrokerUnavailable, redis.RedisError, OSError) as error:
        yield Finding("error", mask_url(str(error)), "start the broker, or correct its URL")
        return
    skew_s = abs(datetime.now(UTC).timestamp() - seconds - micros / 1e6)
    if skew_s > SKEW_MAX_S + rtt_s:
        what = f"this machine's clock and the store's differ by {skew_s:.1f} s"
        yield Finding("warning", what, "run NTP on both: times in logs and on the bus disagree")
    yield from _life(document)


def _life(document: dict[str, object]) -> Iterator[Finding]:
    if document["status"] == "down":
        yield Finding("error", str(document["reason"]), "start the broker")
        return
    tick = document["beat"]["last_tick_s"]  # type: ignore[index]
    if tick is None or tick > health.BEAT_LATE_S:
        what = "beat does not run: no retry, deadline or lost doorbell is looked after"
        yield Finding("warning", what, "start `fleet up`, or `celery -A fleet beat`")
    agents = document["g2"]["agents"]  # type: ignore[index]
    idle = [name for name, row in agents.items() if not row["consuming"]]
    if idle:
        shown = ", ".join(idle[:5]) + (f" and {len(idle) - 5} more" if len(idle) > 5 else "")
        yield Finding("warning", f"nobody works for {shown}", "start `fleet host`, or resume them")


def _certificate(settings: Settings) -> Iterator[Finding]:
    url = urlsplit(settings.broker_url or "")
    if url.scheme not in ("rediss", "valkeys", "amqps") or not url.hostname:
        if url.scheme and url.hostname not in (None, "localhost", "127.0.0.1", "::1"):
            what = f"the connection to {url.hostname} is not encrypted"
            yield Finding("warning", what, "use rediss:// unless the network is private")
        return
    try:
        plain = ssl.create_default_context()
        address = (url.hostname, url.port or 6379)
        with (
            socket.create_connection(address, CONNECT_TIMEOUT_S) as raw,
            plain.wrap_socket(raw, server_hostname=url.hostname) as secured,
        ):
            certificate = secured.getpeercert() or {}
    except (OSError, ssl.SSLError) as error:
        what = f"the certificate of {url.hostname} cannot be checked ({error})"
        yield Finding("warning", what, "make its authority known to this machine")
        return
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    days = (ends - datetime.now(UTC).timestamp()) / 86400
    if days < CERTIFICATE_DAYS_MIN:
        what = f"the certificate of {url.hostname} ends in {days:.0f} days"
        yield Finding("warning", what, "renew it")


def _times(settings: Settings) -> Iterator[Finding]:
    if sentence := grace.warning(settings):
        what, _, remedy = sentence.rstrip(".").rpartition(": ")
        yield Finding("warning", what, remedy)
    for name, agent in settings.agents.items():
        if agent.runner == "llm" and agent.call_timeout_s > settings.timeout_s(name):
            what = (
                f"agents.{name}.call_timeout_s ({agent.call_timeout_s:g} s) is longer than "
                f"its turn ({settings.timeout_s(name):g} s): a hung model leaves the next no time"
            )
            if agent.fallbacks:
                yield Finding("warning", what, "lower it: each tier needs its share of the turn")


def _files_open(settings: Settings) -> Iterator[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES_MIN:
        what = f"a process may open {soft} files, and each client of the API is one"
        yield Finding("warning", what, f"ulimit -n {FILES_MIN * 4}, or LimitNOFILE= in the unit")


def _disk(settings: Settings) -> Iterator[Finding]:
    if settings.broker_url is not None or not settings.data_dir.exists():
        return
    free = shutil.disk_usage(settings.data_dir).free
    if free < DISK_MIN_BYTES:
        what = f"{settings.data_dir} has {free / 2**20:.0f} MiB left: a full disk stops the broker"
        yield Finding("warning", what, "make room, or set fleet.data_dir to another disk")


def _secrets(settings: Settings) -> Iterator[Finding]:
    """Files that hold a password or a key and that other users of the machine can read."""
    path = find_file()
    files = [path] if path is not None and _holds_secret(settings) else []
    files += [settings.data_dir / "broker" / "password"]
    for file in files:
        if file.exists() and file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH) and _open(file):
            what = f"{file} holds a secret and every user of this machine can read it"
            yield Finding("warning", what, f"chmod 600 {file}")


def _open(file: Path) -> bool:
    """False when a folder above is closed to other users."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in file.absolute().parents)


def _holds_secret(settings: Settings) -> bool:
    urls = (settings.broker_url, settings.store_url)
    return (
        settings.alerts.webhook is not None
        or any(url is not None and mask_url(url) != url for url in urls)
        or any("api_key" in agent.params or agent.secret for agent in settings.agents.values())
        or any(tool.headers or tool.env for tool in settings.tools.values())
        or bool(settings.deliveries)
        or settings.upstream.token is not None
    )


def _exposure(settings: Settings) -> Iterator[Finding]:
    if settings.api.trusted_network:
        what = "the API answers everybody in its network (api.trusted_network)"
        yield Finding("warning", what, "let only the operator into that network")
    if settings.flower.port and (address := _reachable_from_outside(settings.flower.port)):
        what = f"Flower answers on {address}, and it asks for no login"
        yield Finding("warning", what, "start it with --address=127.0.0.1, or behind a login")


def _reachable_from_outside(port: int) -> str | None:
    """An address of this machine, other than loopback, at which something listens on `port`."""
    try:
        # No packet is sent: this only asks which address a connection would come from.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            own = probe.getsockname()[0]
        socket.create_connection((own, port), 0.5).close()
    except OSError:
        return None
    return None if own.startswith("127.") else f"{own}:{port}"


def _callbacks(settings: Settings) -> Iterator[Finding]:
    """A service of another machine that is told to call this machine's loopback."""
    if settings.api.public_url or _is_elsewhere(settings.api.host):
        return
    for name, agent in settings.agents.items():
        host = urlsplit(agent.url or "").hostname or ""
        if agent.callback and _is_elsewhere(host):
            what = f"agents.{name}.callback: {host} is told to call back at {settings.api.host}"
            yield Finding("warning", what, "set api.public_url to where it reaches the API")


def _is_elsewhere(host: str) -> bool:
    try:
        return others_can_reach(host)
    except ConfigError:  # nobody knows the name here: it is none of this machine's
        return True


def _models(settings: Settings) -> Iterator[Finding]:
    agents = {name: agent for name, agent in settings.agents.items() if agent.runner == "llm"}
    if not agents:
        return
    # By name, because `fleet` never imports `tasks`.
    obstacle = import_module("tasks.reach").obstacle
    known: dict[tuple[str, str], str | None] = {}
    for name, agent in agents.items():
        for tier in (agent.model or "", *agent.fallbacks):
            key = (tier, repr(sorted(agent.params.items())))
            if key not in known:
                known[key] = obstacle(tier, agent.params)
            if known[key]:
                what = f"{name} cannot call {tier}: {known[key]}"
                yield Finding("warning", what, "correct the model, its key or its address")


def _programs(settings: Settings) -> Iterator[Finding]:
    for name, agent in settings.agents.items():
        if agent.runner not in ("command", "pty"):
            continue
        where = Path(agent.cwd or ".")
        if not where.is_dir():
            what = f"agents.{name}.cwd: there is no folder {agent.cwd}"
            yield Finding("warning", what, "make it, or correct its path")
            continue
        program, path = agent.command[0], agent.env.get("PATH")
        # A relative path is one in the folder that the program runs in.
        found = where / program if "/" in program else program
        if shutil.which(found, path=path) is None:
            what = f"agents.{name}.command: there is no program {program!r}"
            yield Finding("warning", what, "install it where the fleet runs, or correct its name")


def _tools(settings: Settings) -> Iterator[Finding]:
    if any(tool.is_server for tool in settings.tools.values()):
        # Only then, because the SDK is slow to load.
        yield from import_module("fleet.toolservers.check").examine(settings)
    for name, tool in settings.tools.items():
        if tool.is_server:
            continue
        # Looked for, not imported: that would run it. Workers find it where the fleet runs.
        package = str(tool.python).partition(":")[0].partition(".")[0]
        if PathFinder.find_spec(package, [*sys.path, str(Path.cwd())]) is None:
            what = f"tools.{name}.python: there is no module {package!r}"
            yield Finding("warning", what, "install it, or start the fleet in its folder")


def address(settings: Settings) -> str:
    """Which broker was examined, without its password."""
    try:
        return mask_url(broker_url(settings))
    except BrokerUnavailable:
        return "embedded, not running"
