"""A simulated power loss: bytes that were not yet fsynced are lost.

strace records each write to the server's append-only file and each fsync of it. After SIGKILL the
file is cut back by the bytes written since the last fsync began. Writes are cut in their order, and
the disk is trusted: torn sectors and lying disks are not modelled. Rewrites of the file are
switched off, because a rewrite would replace it.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import redis

from fleet.bench._harness import Lab
from fleet.errors import FleetError

_WRITE = re.compile(r"write\(\d+<(?P<path>[^>]*\.incr\.aof)>, .* = (?P<size>\d+)$")
_SYNC = re.compile(r"f(?:data)?sync\(\d+<(?P<path>[^>]*\.incr\.aof)>(?P<end>.*)$")
_RESUMED = re.compile(r"<\.\.\. (?P<call>write|fsync|fdatasync) resumed>.* = (?P<answer>-?\d+)")
_TIMEOUT_S = 10.0


class Power:
    """A watch on one server at a time. Raises FleetError without strace or its permission."""

    def __init__(self) -> None:
        if shutil.which("strace") is None:
            raise FleetError(
                "A power loss needs strace, to know what was fsynced: apt-get install strace."
            )
        self._strace: subprocess.Popen[bytes] | None = None
        self._trace = Path()
        self._pid = 0

    def watch(self, where: Lab) -> None:
        """Trace the running server; return when the trace works."""
        self.stop()
        client = where.client()
        client.config_set("auto-aof-rewrite-percentage", 0)
        self._pid = where.endpoint.pid
        self._trace = where.folder / f"strace-{self._pid}"
        self._trace.touch()
        self._strace = subprocess.Popen(
            [
                "strace",
                "-f",
                "-qq",
                "-y",
                "-s",
                "0",
                "-e",
                "signal=none",
                "-e",
                "trace=write,fsync,fdatasync",
                "-o",
                str(self._trace),
                "-p",
                str(self._pid),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._await_sync(client, self._strace)

    def lose(self) -> int:
        """Cut the file back after the server's SIGKILL; return how many bytes were lost."""
        if self._strace is not None:
            self._strace.wait(_TIMEOUT_S)
        unsynced = unsynced_bytes(self._trace.read_text())
        for path, size in unsynced.items():
            os.truncate(path, os.path.getsize(path) - size)
        return sum(unsynced.values())

    def stop(self) -> None:
        """Stop the trace."""
        if self._strace is None:
            return
        if self._strace.poll() is None:
            self._strace.send_signal(signal.SIGTERM)
        self._strace.wait(_TIMEOUT_S)
        if self._strace.stderr is not None:
            self._strace.stderr.close()
        self._strace = None
        self._trace.unlink(missing_ok=True)

    def _await_sync(self, client: "redis.Redis", strace: "subprocess.Popen[bytes]") -> None:
        until = time.monotonic() + _TIMEOUT_S
        while b"sync(" not in self._trace.read_bytes():
            if strace.poll() is not None or time.monotonic() > until:
                strace.kill()
                output = strace.stderr.read() if strace.stderr else b""
                raise FleetError(
                    f"strace cannot follow the broker: {output.decode(errors='replace').strip()}"
                )
            client.set("bench:power", self._pid)
            time.sleep(0.01)


def unsynced_bytes(trace: str) -> dict[str, int]:
    """The bytes of each file that were written when the server died, but not yet fsynced.

    A write or an fsync under way counts as not done. In doubt the answer is too small rather than
    too large: fsynced bytes are never cut.
    """
    found: dict[str, int] = {}
    #: By thread: the file of an fsync under way, and the bytes that it makes safe.
    syncing: dict[str, tuple[str, int]] = {}
    for line in trace.splitlines():
        thread, _, rest = line.partition(" ")
        rest = rest.strip()
        if write := _WRITE.match(rest):
            found[write["path"]] = found.get(write["path"], 0) + int(write["size"])
        elif sync := _SYNC.match(rest):
            path = sync["path"]
            if sync["end"].endswith("= 0"):
                found[path] = 0
            else:
                syncing[thread] = (path, found.get(path, 0))
        elif (resumed := _RESUMED.match(rest)) and thread in syncing and resumed["answer"] == "0":
            path, safe = syncing.pop(thread)
            found[path] = found.get(path, 0) - safe
    return {path: size for path, size in found.items() if size}
