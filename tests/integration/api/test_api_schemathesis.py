"""The served description, tried out by schemathesis against a living API.

It makes requests of every described operation, right ones and wrong ones, and follows what one
answers into the next. Each answer must be of a described status, media type and shape, a wrong
request must be refused, and nothing may fail inside.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.api.conftest import Api

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.timeout(180)
def test_every_operation_keeps_to_its_description(api: Api, tmp_path: Path) -> None:
    sent = api.send(to="gem").json()
    assert api.http.post(f"/dispatches/{sent['dispatches'][0]['dispatch_id']}/cancel").is_success
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            *("--config-file", str(CONFIG), "run", f"{api.url}/openapi.json"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " 0 selected" not in done.stdout
