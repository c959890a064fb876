"""Importing costs nothing, loading touches no network, and a warm parent spares its children."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Everything in one process, because LiteLLM's import takes seconds.
SCRIPT = """
import gc, json, os, pydantic, socket, sys, time

def recorded(name, real):
    def call(*arguments):
        network.append(f"{name} {arguments[1:]}")
        return real(*arguments)
    return call

network = []
socket.getaddrinfo = recorded("getaddrinfo", socket.getaddrinfo)
socket.socket.connect = recorded("connect", socket.socket.connect)

sys.path.insert(0, sys.argv[1])
from fleet.config.agents import AgentConfig
from tasks.execution import preload
from tasks.model import completion
from tasks.model.reply import ModelError
ask = dict(
    messages=[{"role": "user", "content": "hi"}], timeout_s=5, deadline=time.monotonic() + 300
)
echo = AgentConfig(model="echo/brief", fallbacks=["echo/slow-1"])
preload.preload([echo, AgentConfig(runner="python", python="a:b")])
told = {"text": completion.complete(model="echo/brief", **ask).text}
told["streamed"] = completion.complete(model="echo/brief", on_token=len, **ask).text
try:
    completion.complete(model="echo/loud", **ask)
except ModelError as error:
    told["error"] = str(error)
told["litellm_by_echo"] = "litellm" in sys.modules
# A runner of another package may call models, too.
ours = AgentConfig(model="echo/brief", fallbacks=["openai/ok"])
preload.preload([ours.model_copy(update={"runner": "theirs"})])
gc.freeze()
told |= {
    "network": list(network),
    "threads": len(os.listdir("/proc/self/task")),
    "built": type("Later", (pydantic.BaseModel,), {}).__pydantic_complete__,
    "dotenv": os.environ.get("FROM_DOTENV"),
}
readable, writable = os.pipe()
if os.fork() == 0:
    from tests.fakes.provider import Provider
    with Provider() as provider:
        before = set(sys.modules)
        ask |= {"model": "openai/ok", "params": {"api_base": provider.url, "api_key": "k"}}
        completion.complete(**ask), completion.complete(on_token=len, **ask)
        child = {"late": sorted(set(sys.modules) - before)}
    os.write(writable, json.dumps(child).encode())
    os._exit(0)
os.close(writable)
with open(readable) as answer:
    told["child"] = json.load(answer)
os.wait()
told["threads_after"] = len(os.listdir("/proc/self/task"))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("offline")
    (folder / ".env").write_text("FROM_DOTENV=1\n")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # LiteLLM prints advertisements, tracebacks and hints to both streams when it is let.
    assert done.stderr == ""
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_agents_of_the_echo_model_never_import_litellm(told: dict[str, Any]) -> None:
    assert told["litellm_by_echo"] is False
    assert told["text"] == told["streamed"] == "You said: hi"
    assert told["error"] == "no model answered: echo/loud: NotFoundError"


def test_loading_touches_no_network_and_no_dotenv_file(told: dict[str, Any]) -> None:
    assert told["network"] == []
    assert told["dotenv"] is None


def test_a_first_call_imports_nothing(told: dict[str, Any]) -> None:
    assert told["child"]["late"] == []


def test_a_model_defined_after_the_load_is_built_at_once(told: dict[str, Any]) -> None:
    assert told["built"]


def test_a_warm_parent_stays_fit_for_forks(told: dict[str, Any]) -> None:
    assert (told["threads"], told["threads_after"]) == (1, 1)
