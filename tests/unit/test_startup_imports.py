"""A fleet that starts imports nothing that only some fleets need: each costs every start."""

import subprocess
import sys

import pytest

SLOW = {"litellm", "openai", "mcp", "httpx", "rich"}


@pytest.mark.parametrize(
    "modules",
    [
        "fleet.cli.up",
        "fleet.api.server",
        "fleet.supervisor.host, fleet.worker.bootsteps, fleet.ops.alerts.step, tasks.runners.llm",
        "tasks.deliver, tasks.dispatch, tasks.intake, tasks.maintenance, fleet.ops.alerts.watch",
    ],
    ids=["up", "api", "host", "shared worker"],
)
def test_a_process_starts_without_what_only_some_fleets_need(modules: str) -> None:
    script = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=55, check=True
    )
    assert not SLOW & set(done.stdout.split())
