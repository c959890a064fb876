"""The target of a run with outages: `fleet up` with its embedded broker, always restarted.

The server is started through a script of the run. The script waits while `hold` asks for it, so the
broker stays away although its supervisor starts it again at once.
"""

import http.client
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from fleet.bench import _chaos_turns
from fleet.bench._auditor import Call, History
from fleet.bench._chaos_fleet import Services, kill, read_history, unfinished
from fleet.bench._harness import Lab
from fleet.broker.binary import OVERRIDE, find_server
from fleet.broker.embedded import Endpoint, read_endpoint
from fleet.errors import BrokerUnavailable, FleetError
from fleet.ledger import agent_rows
from fleet.store import Store, keys, open_store
from fleet.store.connection import reachable
from fleet.system.api_address import read_address
from fleet.system.process_identity import all_pids

READY_S_MAX = 180.0
ANSWER_S_MAX = 30.0
_BUS_LENGTH = 10_000_000

_TOML = """\
[fleet]
data_dir = "{folder}"
lease_ttl_s = {ttl_s}
drain_s = 2
retention = {{ max = 10000000 }}
[bus]
max_length = {bus_length}
max_age_s = 86400
[breaker]
failure_threshold = 2
reset_timeout_s = 1.0
[api]
port = 0
[flower]
enabled = false
"""
_AGENT = """\
[agents.{name}]
runner = "python"
python = "fleet.bench._chaos_turns:calls"
timeout_s = 60
max_pending = 100000
retry = {{ attempts = 5, backoff_s = 0.2, min_age_s = 0 }}
"""
_SERVER = """\
#!/bin/sh
[ "$1" = --version ] || while [ -e "{hold}" ]; do sleep 0.1; done
exec "{server}" "$@"
"""


class UpFleet(Services):
    """`fleet up` on the lab's folder, in the place of the lab's own broker."""

    def __init__(self, where: Lab, agents: list[str], *, provider: int, ttl_s: float) -> None:
        super().__init__(where, "up")
        where.broker.stop()
        self.agents = agents
        self.folder = where.folder
        self._where = where
        self._hold = where.folder / "hold"
        config, server = where.folder / "fleet.toml", where.folder / "server.sh"
        text = _TOML.format(folder=where.folder, ttl_s=ttl_s, bus_length=_BUS_LENGTH)
        config.write_text(text + "".join(_AGENT.format(name=name) for name in agents))
        server.write_text(_SERVER.format(hold=self._hold, server=find_server().path.absolute()))
        server.chmod(0o700)
        self.env = {
            "FLEET_CONFIG": str(config),
            OVERRIDE: str(server),
            _chaos_turns.DIARY: str(self.diary),
            _chaos_turns.PROVIDER: str(provider),
        }
        self.commands = {"up": ([sys.executable, "-m", "fleet", "up"], self.env)}
        self._store: tuple[str, Store] | None = None

    def start(self) -> None:
        """Start the fleet; return when it is ready."""
        self.start_all()
        self.keep_running()
        self.await_ready()
        if endpoint := self.endpoint():
            self._where.endpoint = endpoint

    def await_ready(self) -> None:
        """Return when the API says that it is ready and each agent has a holder."""
        until = time.monotonic() + READY_S_MAX
        while not self._ready():
            if time.monotonic() > until:
                raise FleetError(
                    f"The fleet was not ready within {READY_S_MAX:g} s: "
                    f"{self.processes.last_line()}"
                )
            time.sleep(0.1)

    def endpoint(self) -> Endpoint | None:
        """The broker that runs now, or None."""
        with suppress(BrokerUnavailable):
            return read_endpoint(self.folder)
        return None

    def hold(self) -> None:
        """Let no server start from now on."""
        self._hold.touch()

    def release(self) -> None:
        """Let servers start again."""
        self._hold.unlink(missing_ok=True)

    def http(self, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
        """One request on a connection of its own. Raises OSError, or HTTPException if cut off."""
        url = urlsplit(read_address(self.folder) or "")
        if not url.hostname:
            raise ConnectionRefusedError("no API has published its address")
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=ANSWER_S_MAX)
        try:
            connection.request(method, path, body or None, {"content-type": kind} if kind else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def open_store(self) -> Store:
        """The store with its present password. Raises BrokerUnavailable while it is away."""
        endpoint = self.endpoint()
        if endpoint is None:
            raise BrokerUnavailable("The broker is away.")
        if self._store is None or self._store[0] != endpoint.url:
            self._close_store()
            self._store = (endpoint.url, open_store(endpoint.url, bus_max_length=_BUS_LENGTH))
        return self._store[1]

    def unfinished(self) -> int:
        """Dispatches without an outcome in the ledger. Raises BrokerUnavailable."""
        return unfinished(self.open_store())

    def unknown(self, dispatch_ids: set[str]) -> set[str]:
        """The dispatches that the ledger does not have. Raises BrokerUnavailable."""
        ids = sorted(dispatch_ids)
        with reachable():
            pipe = self.open_store().client.pipeline(transaction=False)
            for dispatch_id in ids:
                pipe.exists(keys.dispatch(dispatch_id))
            found = pipe.execute()
        return {dispatch_id for dispatch_id, there in zip(ids, found, strict=True) if not there}

    def history(
        self,
        accepted: frozenset[str],
        calls: tuple[Call, ...],
        *,
        in_outage: dict[str, str],
        contradictions: tuple[str, ...],
    ) -> History:
        """The records of the run."""
        found = read_history(self.open_store(), self.diary, accepted, calls)
        return replace(found, in_outage=in_outage, contradictions=contradictions)

    def processes_of(self, *words: str) -> list[int]:
        """Living processes of the run whose command line has all these words."""
        found = []
        for pid in self.all_processes():
            with suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if all(word in line for word in words):
                    found.append(pid)
        return found

    def all_processes(self) -> list[int]:
        """Every living process that has inherited the run's environment, and the broker."""
        mark = f"{_chaos_turns.DIARY}={self.diary}".encode()
        found = []
        for pid in all_pids():
            with suppress(OSError):
                if pid != os.getpid() and mark in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(pid)
        # The server writes its title over its environment.
        if endpoint := self.endpoint():
            found.append(endpoint.pid)
        return found

    def stop(self) -> None:
        """Stop the fleet in order, and kill what is left of it; the lab's own broker runs again."""
        self.release()
        self._close_store()
        super().stop()
        kill(*self.all_processes())
        self._where.endpoint = self._where.broker.start()

    def _ready(self) -> bool:
        try:
            rows = agent_rows.rows(self.open_store(), list(self.agents)).values()
            return (
                all(row["online"] for row in rows)
                and self.http("GET", "/readyz")[0] == http.HTTPStatus.OK
            )
        except (BrokerUnavailable, OSError, http.client.HTTPException):
            return False

    def _close_store(self) -> None:
        if self._store is not None:
            self._store[1].close()
            self._store = None
