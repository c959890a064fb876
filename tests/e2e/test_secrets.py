"""Secrets of the environment that `fleet up` was started with: who has them."""

import json
import signal
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from fleet.system.api_address import read_address
from tests.e2e.running import HEAD, Place, place
from tests.fixtures.processes import wait_until

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes tell nothing"),
]

CONFIG = (
    HEAD.replace("[fleet]", "[fleet]\nlease_ttl_s = 1.5").replace("enabled = false", "port = 0")
    + """
[breaker]
failure_threshold = 1
reset_timeout_s = 1
[agents.asks]
runner = "python"
python = "my_agents:asks"
[routes]
default = ["asks"]
"""
)
CODE = """
import os

def asks(turn):
    with open("diary", "a") as diary:
        diary.write(f"{turn.text} {os.environ.get('PROVIDER_API_KEY')}\\n")
    return "asked"
"""
KEY = "PROVIDER_API_KEY=sk-canary"


def holders(here: Place) -> list[str]:
    """The command lines of the processes that have the key, but `fleet up` itself."""
    found = [
        " ".join(process.cmdline())
        for process in here.living()
        if KEY in Path(f"/proc/{process.pid}/environ").read_text()
    ]
    return [line for line in found if not line.endswith(" up")]


def test_only_what_runs_turns_has_a_providers_key(tmp_path: Path) -> None:
    (tmp_path / "my_agents.py").write_text(CODE)
    name, value = KEY.split("=")
    with place(tmp_path, CONFIG, {name: value}) as here:
        here.up()
        assert here.outcome("online", "--to", "asks")["state"] == "completed"
        having = holders(here)
        assert any("fleet host" in line or line.endswith("host") for line in having)
        for kind in ("valkey", "redis-server", "api", "beat", "flower", "intake"):
            assert not [line for line in having if kind in line]
        broker = json.loads((tmp_path / ".fleet/broker/endpoint.json").read_text())["pid"]
        psutil.Process(broker).send_signal(signal.SIGSTOP)
        try:
            url = f"{read_address(tmp_path / '.fleet')}/events"
            # The first costs a timeout and may have landed, so it does not run now.
            for text in ("first", "offline"):
                event = {"id": text, "text": text}
                assert httpx.post(url, json=event, timeout=30, trust_env=False).status_code == 202
            diary = tmp_path / "diary"
            wait_until(lambda: "offline" in diary.read_text(), 60)
        finally:
            psutil.Process(broker).send_signal(signal.SIGCONT)
        assert diary.read_text().splitlines()[:2] == ["online sk-canary", "offline sk-canary"]
        assert here.stop() == 0
