"""Faults between a configuration and its promises are found, each with its remedy."""

import json
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fleet.cli import main
from fleet.config.settings import Settings, load, parse
from fleet.errors import BrokerUnavailable
from fleet.ops.doctor.checks import examine, store_of
from fleet.runtime import Runtime
from fleet.store import Store, keys
from fleet.turn.providers import Providers
from routing import Event, decide
from tests.fakes import tool_server
from tests.fixtures.ledger import settings_for
from tests.fixtures.valkey import Valkey, free_port

PYTHON = {"runner": "python", "python": "a:b"}


def found(settings: Settings, store: Store) -> dict[str, str]:
    """Finding -> its level, or `loses data`."""
    return {
        finding.what: "loses data" if finding.loses_data else finding.level
        for finding in examine(settings, lambda: store)
        if finding.level != "info"
    }


def level(findings: dict[str, str], words: str) -> str | None:
    return next((level for what, level in findings.items() if words in what), None)


@pytest.fixture
def changed(store: Store) -> Iterator[Store]:
    """A store whose options a test may change."""
    names = ("appendonly", "maxmemory-policy", "maxmemory")
    before = {name: str(store.client.config_get(name)[name]) for name in names}
    yield store
    for name, value in before.items():
        store.client.config_set(name, value)


@pytest.fixture
def full_log(tmp_path: Path) -> Iterator[Path]:
    """A data folder whose log folder is a small disk, with no room."""
    logs = tmp_path / "log"
    logs.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", logs],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs (root on Linux)")
    (logs / "agent.a.log").write_bytes(b"x" * 60_000)
    yield tmp_path
    subprocess.run(["umount", "-l", logs], check=True)


def test_a_log_folder_without_room_is_found(store: Store, full_log: Path) -> None:
    settings = settings_for("a", fleet={"data_dir": str(full_log)})
    assert level(found(settings, store), "is not in the logs") == "warning"


def test_a_server_without_aof_would_lose_events(changed: Store) -> None:
    changed.client.config_set("appendonly", "no")
    assert level(found(settings_for("a"), changed), "AOF is off") == "loses data"
    changed.client.config_set("appendonly", "yes")
    assert level(found(settings_for("a"), changed), "AOF is off") is None


def test_a_server_that_evicts_would_lose_events(changed: Store) -> None:
    changed.client.config_set("maxmemory", "100mb")
    changed.client.config_set("maxmemory-policy", "allkeys-lru")
    assert level(found(settings_for("a"), changed), "maxmemory-policy") == "loses data"


def test_who_does_not_work_is_named(store: Store, valkey: Valkey) -> None:
    settings = settings_for("a", "b", fleet={"broker_url": valkey.url})
    findings = found(settings, store)
    assert level(findings, "nobody works for a, b") == "warning"
    assert level(findings, "beat has never run") == "warning"
    seconds, _ = store.client.time()
    store.client.hset(keys.BEAT, "health", str(seconds))
    assert level(found(settings, store), "beat has never run") is None


def test_a_broker_that_is_away_is_an_error_without_its_password() -> None:
    def away() -> Store:
        raise BrokerUnavailable("no answer from redis://u:hush@db:6379/0")

    url = {"broker_url": "redis://u:hush@db:6379/0"}
    first = next(one for one in examine(settings_for("a", fleet=url), away) if one.remedy)
    assert first.level == "error"
    assert "hush" not in first.what


def test_a_secret_that_everybody_can_read_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o001)
        if parent == Path("/tmp"):
            break
    file = folder / "fleet.toml"
    file.touch(mode=0o644)
    file.chmod(0o644)
    monkeypatch.setenv("FLEET_CONFIG", str(file))
    settings = parse({"agents": {"a": PYTHON}, "alerts": {"webhook": "https://x.example/s"}})
    assert level(found(settings, store), "holds a secret") == "warning"
    file.chmod(0o600)
    assert level(found(settings, store), "holds a secret") is None
    file.chmod(0o644)
    assert level(found(settings_for("a"), store), "holds a secret") is None


def agent(model: str, **params: Any) -> Settings:
    return parse({"agents": {"a": {"model": model, "params": params}}})


def test_a_model_that_could_not_be_called_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    assert level(found(agent("echo/brief"), store), "cannot call") is None
    keyless = found(agent("anthropic/claude-sonnet-4-5"), store)
    assert level(keyless, "ANTHROPIC_API_KEY is not in the environment") == "warning"
    assert level(found(agent("nosuch/model"), store), "no provider of that name") == "warning"
    meant = "no provider of that name; did you mean anthropic/claude-sonnet-4-5?"
    assert level(found(agent("antropic/claude-sonnet-4-5"), store), meant) == "warning"
    with socket.create_server(("127.0.0.1", 0)) as server:
        base = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        there = agent("openai/m", api_base=base, api_key="k")
        assert level(found(there, store), "cannot call") is None
    assert level(found(there, store), "cannot be reached") == "warning"


@pytest.mark.parametrize("runner", ["command", "pty"])
def test_a_program_that_is_not_there_is_named(store: Store, tmp_path: Path, runner: str) -> None:
    def says(*command: str, **more: Any) -> dict[str, str]:
        agent = {"runner": runner, "command": list(command), **more}
        return found(parse({"agents": {"a": agent}}), store)

    (tmp_path / "mine").touch(0o755)
    assert level(says("sh", "-i"), "no program") is None
    assert level(says("./mine", cwd=str(tmp_path)), "no program") is None
    assert level(says("./mine"), "there is no program './mine'") == "warning"
    assert level(says("sh", env={"PATH": str(tmp_path)}), "there is no program 'sh'") == "warning"
    assert level(says("sh", cwd=str(tmp_path / "x")), "agents.a.cwd: there is no") == "warning"


def test_a_service_that_could_not_call_back_is_named(store: Store) -> None:
    def service(url: str, **api: str) -> Settings:
        agent = {"runner": "http", "url": url, "secret": "0123456789abcdef", "callback": True}
        return parse({"agents": {"a": agent}, "api": api})

    words = "is told to call back at 127.0.0.1"
    assert level(found(service("http://192.0.2.7/"), store), words) == "warning"
    assert level(found(service("http://127.0.0.1:1/"), store), words) is None
    assert level(found(service("http://192.0.2.7/", public_url="http://x"), store), words) is None


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A TLS server whose certificate ends in four days, and that certificate."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "5"),
            *("-keyout", key, "-out", certificate, "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who looks hangs up
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port, certificate
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_every_end_s_certificate_is_looked_at(
    store: Store, secured: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, certificate = secured
    url = f"https://localhost:{port}"
    webhook = parse({"agents": {"a": PYTHON}, "alerts": {"webhook": f"{url}/hush"}})
    unknown = found(webhook, store)
    assert level(unknown, "alerts.webhook: the certificate of localhost is not accepted")
    assert not [what for what in unknown if "hush" in what]
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    rediss = f"rediss://:hush@localhost:{port}/0"
    for settings, key in (
        (webhook, "alerts.webhook"),
        (agent("openai/m", api_base=f"{url}/v1", api_key="k"), "agents.a: openai/m"),
        (parse({"agents": {"a": PYTHON}, "fleet": {"broker_url": rediss}}), "fleet.broker_url"),
        (parse({"agents": {"a": {"runner": "http", "url": url}}}), "agents.a.url"),
    ):
        ends = f"{key}: the certificate of localhost ends in 5 days"
        assert level(found(settings, store), ends) == "warning", key


def test_an_end_that_does_not_answer_is_named(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/hush"
        settings = parse({"agents": {"a": PYTHON}, "alerts": {"webhook": url}})
        assert level(found(settings, store), "alerts.webhook") is None
    assert level(found(settings, store), "alerts.webhook: 127.0.0.1") == "warning"


def test_data_in_memory_would_be_lost(store: Store) -> None:
    folder = Path("/dev/shm")  # the one place that Linux keeps in memory
    if not folder.is_dir():
        pytest.skip("needs Linux")
    settings = parse({"agents": {"a": PYTHON}, "fleet": {"data_dir": str(folder)}})
    assert level(found(settings, store), "is in memory") == "loses data"


def test_what_waits_in_the_spool_and_what_the_alerts_tell_is_found(
    store: Store, tmp_path: Path
) -> None:
    settings = settings_for("a", fleet={"data_dir": str(tmp_path)})
    event = Event.parse({"to": "a", "text": "x"}, new_id="1", now="2026-01-01T00:00:00Z")
    Runtime(settings).spool.store([(event, decide(event, settings.rules()))])
    Providers(lambda: store, settings.breaker, "a").report("acme/m", "5f00", "denied", "HTTP 401")
    findings = found(settings, store)
    assert level(findings, "1 events wait on the disk") == "warning"
    assert level(findings, "acme/m key 5f00 is not called any more after HTTP 401") == "warning"


def test_a_module_that_is_not_there_is_named(store: Store) -> None:
    agents = {
        "c": {"runner": "python", "python": "no_such.module:f"},
        "d": {"runner": "python", "python": "tests.fixtures.agents:play"},
    }
    findings = found(parse({"agents": agents}), store)
    assert level(findings, "agents.c.python: there is no module") == "error"
    assert level(findings, "agents.d") is None


def test_a_tool_that_is_not_installed_is_named(store: Store) -> None:
    settings = parse({"agents": {"a": PYTHON}, "tools": {"x": {"python": "no_such.mod:t"}}})
    assert level(found(settings, store), "tools.x.python: there is no module") == "error"


def test_a_tool_server_that_cannot_be_had_is_named(store: Store, tmp_path: Path) -> None:
    server: dict[str, Any] = {
        "command": [sys.executable, "-S", tool_server.__file__],
        "cwd": str(tmp_path),
    }
    tools = {
        "good": server,
        "misnamed": {**server, "classes": {"read_ehco": "read"}},
        "broken": {**server, "command": [*server["command"], "broken"]},
        "empty": {**server, "command": [*server["command"], "empty"]},
        "absent": {"command": ["no-such-program"]},
        "away": {"url": f"http://127.0.0.1:{free_port()}/mcp"},
    }
    agents = {"a": {"model": "echo/brief", "tools": ["good", "empty", "misnamed"]}}
    findings = found(parse({"agents": agents, "tools": tools}), store)
    for words in (
        "agents.a.tools: good and misnamed both have a tool odd_name_of_a_tool",
        "tools.misnamed.classes.read_ehco: the server has no such tool",
        "tools.broken: the server ended with exit code 1",
        "tools.empty: the server offers no tools",
        "tools.absent.command: there is no program 'no-such-program'",
        "tools.away: the server cannot be reached",
    ):
        assert level(findings, words) == "warning"
    assert level(findings, "tools.good") is None


def doctor(capsys: pytest.CaptureFixture[str]) -> tuple[object, Any]:
    """The exit code of the command, and what it says."""
    load.cache_clear()
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--json"])
    return end.value.code, json.loads(capsys.readouterr().out)


def test_the_command_exits_with_1_only_where_the_fleet_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first `fleet up` there is no embedded broker, which is no fault."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "nothing"))
    code, said = doctor(capsys)
    assert (code, said["ok"]) == (0, True), said
    assert any("`fleet up` starts the broker" in one["what"] for one in said["findings"])
    assert not (tmp_path / "nothing").exists()
    monkeypatch.setenv("FLEET_REDIS_SERVER", str(tmp_path / "no-server"))
    code, said = doctor(capsys)
    assert (code, said["findings"][0]["level"]) == (1, "error")
    monkeypatch.setenv("FLEET_BROKER_URL", f"redis://127.0.0.1:{free_port()}/0")
    code, said = doctor(capsys)
    assert (code, said["findings"][0]["level"]) == (1, "error")


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_data_folder_that_is_a_file_is_named(
    below: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a-file").write_text("")
    config = tmp_path / "fleet.toml"
    tables = f"[fleet]\ndata_dir = '{tmp_path}/a-file{below}'\n[agents.a]\nmodel = 'echo/brief'\n"
    config.write_text(tables)
    monkeypatch.setenv("FLEET_CONFIG", str(config))
    load.cache_clear()
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json"])
    load.cache_clear()
    assert ended.value.code == 1
    first = json.loads(capsys.readouterr().out)["findings"][0]
    fault = f"fleet.data_dir: {tmp_path}/a-file is not a folder"
    assert (first["level"], first["what"]) == ("error", fault)


def test_a_store_that_hangs_is_asked_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings = settings_for("a", fleet={"broker_url": f"redis://127.0.0.1:{port}/0"})
        told = [one.what for one in examine(settings, lambda: store_of(settings))]
        assert any("Timeout" in what for what in told)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_variables_that_are_passed_over_are_named_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CELERY_BROKER_URL", "RESULT_BACKEND", "FLEET_SERVICE_HOST"):
        monkeypatch.setenv(name, "redis://u:hush@elsewhere:1/0")
    told = [finding for finding in examine(settings_for("a"), lambda: store) if finding.what]
    (celery,) = [one for one in told if "CELERY_BROKER_URL" in one.what]
    (service,) = [one for one in told if "FLEET_SERVICE_HOST" in one.what]
    assert "RESULT_BACKEND" in celery.what
    assert celery.level == service.level == "info"
    assert not any("hush" in one.what for one in told)
