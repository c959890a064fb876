"""`fleet up` beside another Flower, whose variables and whose file are set."""

import urllib.error
import urllib.request
from pathlib import Path

from tests.e2e.running import UP_S, place
from tests.fixtures.containers import free_port
from tests.fixtures.processes import wait_until


def test_flower_goes_by_the_fleets_settings_alone(tmp_path: Path) -> None:
    port = free_port()
    others = {
        "FLOWER_PORT": "tcp://10.0.0.1:5555",
        "FLOWER_PORT_5555_TCP": "tcp://10.0.0.1:5555",
        "FLOWER_MAX_TASKS": "many",
        "FLOWER_URL_PREFIX": "elsewhere",
        "FLOWER_CONF": "/not/there.py",
        "FLOWER_CERTFILE": "/not/there.pem",
    }
    (tmp_path / "flowerconfig.py").write_text("raise SystemExit('of another Flower')\n")
    config = f'[api]\nport = 0\n[flower]\nport = {port}\n[agents.a]\nmodel = "echo/brief"\n'
    with place(tmp_path, config, others) as found:
        found.up()
        wait_until(lambda: _answers(port), UP_S)
        (told,) = [
            row["what"]
            for row in found.fleet("doctor", "--json").json["findings"]
            if "FLOWER_PORT" in row["what"]
        ]
        assert set(others) <= {name.strip(",:") for name in told.split()}
        assert found.stop() == 0


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError as error:
        return isinstance(error, urllib.error.HTTPError)
