"""The platform's wait between SIGTERM and SIGKILL, and the check that a drain fits into it."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fleet.config.settings import Settings

#: Beyond drain_s: handing the turn back and closing connections.
MARGIN_S = 5.0
#: Documented defaults: `docker stop` 10 s, a pod's terminationGracePeriodSeconds 30 s.
_DOCKER_S = 10.0
_KUBERNETES_S = 30.0
_SYSTEMCTL_TIMEOUT_S = 2.0
#: In the order in which Docker looks for them.
_COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


@dataclass(frozen=True, slots=True)
class ShutdownGrace:
    """A grace period and its source."""

    seconds: float
    source: str


def grace(settings: Settings) -> ShutdownGrace | None:
    """The grace of this process; None where it is unknown (a terminal, `fleet up`)."""
    if settings.stop_grace_s is not None:
        return ShutdownGrace(settings.stop_grace_s, "fleet.stop_grace_s")
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return ShutdownGrace(
            _KUBERNETES_S, "Kubernetes' default; set fleet.stop_grace_s if yours differs"
        )
    if Path("/.dockerenv").exists() and _is_container_program():
        return ShutdownGrace(_DOCKER_S, "Docker's default; set fleet.stop_grace_s if yours differs")
    if file := _compose_file_without_grace():
        source = f"Docker's default, and {file} sets no stop_grace_period"
        return ShutdownGrace(_DOCKER_S, source)
    return _systemd()


def warning(settings: Settings) -> str | None:
    """A sentence when a drain would be cut off, otherwise None. That turn counts as lost."""
    found = grace(settings)
    if found is None or settings.drain_s + MARGIN_S <= found.seconds:
        return None
    return (
        f"fleet.drain_s is {settings.drain_s:g} s, but this process is killed "
        f"{found.seconds:g} s after SIGTERM ({found.source}): lower drain_s or raise the grace."
    )


def _is_container_program() -> bool:
    """True where the fleet is what `docker stop` ends: not in a shell of a container."""
    try:
        words = Path("/proc/1/cmdline").read_bytes().split(b"\0")
    except OSError:
        return True
    return bool({b"fleet", b"celery", b"honcho"} & {word.rpartition(b"/")[2] for word in words})


def _compose_file_without_grace() -> str | None:
    """A compose file of this folder that runs a fleet with the default grace."""
    for name in _COMPOSE_FILES:
        try:
            text = Path(name).read_text(errors="replace")
        except OSError:
            continue
        runs_fleet = re.search(r"(entrypoint|command):.*\bfleet\b", text)
        return name if runs_fleet and "stop_grace_period" not in text else None
    return None


def _systemd() -> ShutdownGrace | None:
    if "INVOCATION_ID" not in os.environ:
        return None
    unit = re.search(r"/([^/]+\.service)$", Path("/proc/self/cgroup").read_text().strip())
    if unit is None:
        return None
    command = ["systemctl", "show", "--property=TimeoutStopUSec", "--value", unit.group(1)]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_SYSTEMCTL_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    seconds = _span_s(answer.stdout.strip())
    return ShutdownGrace(seconds, f"{unit.group(1)}'s TimeoutStopSec") if seconds else None


def _span_s(text: str) -> float | None:
    """systemd's time span, such as `1min 30s`, in seconds; None for `infinity`."""
    units = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
    parts = re.findall(r"(\d+)(ms|s|min|h)\b", text)
    return sum(float(number) * units[unit] for number, unit in parts) or None
