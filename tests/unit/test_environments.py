"""Secrets of the environment: which process finds them, and on which way."""

import json
import os
import subprocess
import sys

import pytest

from fleet.system import environments

SECRETS = {"SOME_API_KEY": "k1", "github_token": "k2", "AWS_SECRET_ACCESS_KEY": "k3"} | {
    "FLEET_TOKEN": "t"
}
SETTINGS = {"FLEET_API__TOKEN": "f", "OTEL_EXPORTER_OTLP_HEADERS": "o", "FLOWER_OAUTH2_KEY": "w"}

#: A process that starts another, as the API starts the one that runs spooled turns.
BETWEEN = """
import os, subprocess, sys
from fleet.system.environments import secrets_fd
assert "SOME_API_KEY" not in os.environ
for _ in range(2):
    subprocess.run([sys.executable, "-c", sys.argv[1]], pass_fds=secrets_fd(), check=True)
"""
TAKES = """
import json, os
from fleet.system.environments import secrets_fd, receive_secrets
receive_secrets()
receive_secrets()
print(json.dumps([os.environ.get("SOME_API_KEY"), secrets_fd()]))
"""


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, **SETTINGS, "DATABASE_URL": "d", "LC_TIME": "C"}.items():
        monkeypatch.setenv(name, value)


def test_a_process_that_runs_no_turn_has_no_secret_but_its_settings() -> None:
    found = environments.without_secrets()
    assert not SECRETS.keys() & found
    assert {**SETTINGS, "PATH": os.environ["PATH"]}.items() <= found.items()


def test_a_program_has_what_every_program_needs_and_what_it_is_given() -> None:
    found = environments.of_program(
        {"TOKEN": "$github_token", "PRICE": "$5.00", "LC_TIME": "POSIX"}
    )
    assert not {*SECRETS, *SETTINGS, "DATABASE_URL"} & found.keys()
    assert (found["TOKEN"], found["PRICE"], found["LC_TIME"]) == ("k2", "$5.00", "POSIX")
    assert found["PATH"] == os.environ["PATH"]
    with pytest.raises(KeyError, match="NOT_SET"):
        environments.of_program({"TOKEN": "$NOT_SET"})


def test_secrets_reach_a_childs_child_in_no_environment_on_the_way() -> None:
    fd = environments.secrets_file()
    try:
        done = subprocess.run(
            [sys.executable, "-c", BETWEEN, TAKES],
            env={**environments.without_secrets(), environments.SECRETS_FD: str(fd)},
            pass_fds=[fd],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    finally:
        os.close(fd)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [["k1", []]] * 2
