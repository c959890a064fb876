"""One Valkey process of a broker folder: its configuration, its start, the reason of its end."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fleet.broker.binary import find_server
from fleet.broker.endpoint import SOCKET, BrokerFolder
from fleet.errors import BrokerUnavailable
from fleet.system.environments import without_secrets
from fleet.system.memory import machine_bytes

Durability = Literal["always", "everysec"]

#: A server that neither answers nor loads for this long hangs. An empty server answers in 0.05 s;
#: loading reports at each 2 MB, which a bad disk reads in a second.
TIMEOUT_S = 15.0
#: After SIGKILL only the kernel's own work is left.
KILL_TIMEOUT_S = 5.0
POLL_S = 0.005
#: A loading server answers between two chunks of 2 MB only.
CLIENT_TIMEOUT_S = 2.0
LOG_BYTES_MAX = 5_000_000
#: With less space left than this a server cannot even log why it ended.
DISK_FULL_BYTES = 64 * 1024
#: Of the machine's memory, for the data. While the file is rewritten a second process has what
#: changes in that time; turns need the rest. Intake ends before, at `caps.store_memory` of it.
MEMORY_SHARE = 0.5
#: The server quotes from a broken file at length.
REASON_MAX = 200

#: Read from standard input, so that neither password nor path needs quoting in a file. "always" is
#: the default because everysec lost acknowledged writes at a power loss.
_CONFIG = """\
unixsocket {socket}
unixsocketperm 700
bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
daemonize no
logfile ""
save ""
appendonly yes
appendfsync {durability}
aof-load-truncated yes
auto-aof-rewrite-min-size 16mb
maxmemory {memory}
maxmemory-policy noeviction
timeout 0
tcp-keepalive 60
"""

#: "4711:M 21 Nov 2026 10:57:02.368 # " opens a line of level warning.
_WARNING = re.compile(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ # (?!WARNING )(.+)$", re.MULTILINE)


class ProgressTimeout:
    """A time limit that begins anew at each progress."""

    def __init__(self) -> None:
        self._reached = 0
        self._until = time.monotonic() + TIMEOUT_S

    def left(self, reached: int) -> bool:
        """False once `reached` has not grown for TIMEOUT_S."""
        if reached > self._reached:
            self._reached = reached
            self._until = time.monotonic() + TIMEOUT_S
        return time.monotonic() < self._until


def launch(
    folder: BrokerFolder, port: int, durability: Durability, lock: int
) -> "subprocess.Popen[bytes]":
    """Start a server that inherits `lock`, and publish it once it answers with its data loaded.

    `port` 0 opens none. Raises BrokerUnavailable with the server's own reason, or OSError; no
    server is left then.
    """
    binary = find_server().path.absolute()
    config = _CONFIG.format(
        socket=SOCKET,
        port=port,
        password=folder.password(),
        durability=durability,
        memory=memory_max(),
    )
    # First: the last server's number may be another process's by now.
    folder.publish(0)
    logged_before = _rotate(folder.log)
    with folder.log.open("ab") as log, _as_input(config) as standard_input:
        process = subprocess.Popen(
            [binary, "-"],
            stdin=standard_input,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder.path,
            env=without_secrets(),
            # The fleet handles Ctrl-C and a closed terminal, and stops the server last.
            start_new_session=True,
            pass_fds=[lock],
        )
    try:
        _await_answer(process, folder, logged_before)
        folder.publish(process.pid)
    except BaseException:
        process.kill()
        process.wait(KILL_TIMEOUT_S)
        raise
    return process


def server_info(url: str) -> dict[str, Any]:
    """A server's INFO, loading or not; empty when it is away or refuses the password."""
    try:
        with _client(url) as client:
            answer: dict[str, Any] = client.info()
            return answer
    except (redis.RedisError, OSError):
        return {}


def memory_max() -> int:
    """The most bytes that a server of ours may use for its data."""
    return int(machine_bytes() * MEMORY_SHARE)


def configure(url: str, durability: Durability) -> bool:
    """Give a running server of ours what a new one would have; False when it is away."""
    try:
        with _client(url) as client:
            client.config_set("appendfsync", durability)
            client.config_set("maxmemory", memory_max())
    except (redis.RedisError, OSError):
        return False
    return True


def _client(url: str) -> "redis.Redis":
    # No retries of its own: all callers poll.
    retry = Retry(NoBackoff(), 0)
    return redis.Redis.from_url(
        url, decode_responses=True, socket_timeout=CLIENT_TIMEOUT_S, retry=retry
    )


def _await_answer(
    process: "subprocess.Popen[bytes]", folder: BrokerFolder, logged_before: int
) -> None:
    patience = ProgressTimeout()
    url = folder.endpoint(process.pid).url
    while process.poll() is None:
        info = server_info(url)
        if info and not info["loading"] and info["process_id"] == process.pid:
            return
        if not patience.left(info.get("loading_loaded_bytes", 0)):
            raise BrokerUnavailable(
                f"The embedded broker was silent for {TIMEOUT_S:g} s; its log is {folder.log}."
            )
        time.sleep(POLL_S)
    printed = folder.log.read_bytes()[logged_before:].decode(errors="replace")
    raise BrokerUnavailable(_why(process.returncode, printed, folder))


def _why(code: int, printed: str, folder: BrokerFolder) -> str:
    lines = _WARNING.findall(printed) or printed.splitlines()
    reason = next((line.strip() for line in reversed(lines) if line.strip()), "no reason given")[
        :REASON_MAX
    ]
    remedy = f"its log is {folder.log}"
    if "Address already in use" in printed:
        remedy = "end the program that listens there, or set fleet.broker_tcp to another"
    if shutil.disk_usage(folder.path).free < DISK_FULL_BYTES or "No space left" in printed:
        remedy = f"the disk is full, so make room under {folder.path}"
    return f"The embedded broker ended at its start with exit code {code} ({reason}); {remedy}."


def _rotate(log: Path) -> int:
    """Begin a new log when this one is long; the size of the current one in bytes."""
    size = log.stat().st_size if log.exists() else 0
    if size <= LOG_BYTES_MAX:
        return size
    log.replace(log.with_name(f"{log.name}.1"))
    return 0


@contextmanager
def _as_input(text: str) -> Iterator[int]:
    """A file to read `text` from. It must fit into a pipe, which holds 16 KiB at least."""
    reading, writing = os.pipe()
    try:
        os.write(writing, text.encode())
        os.close(writing)
        yield reading
    finally:
        os.close(reading)
