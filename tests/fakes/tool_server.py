"""A Model Context Protocol server that misbehaves as told, by its arguments and by its tools.

    python tool_server.py [never | garbage | stubborn | broken | empty | newer | schemas] ...

Speaks on its standard input and output, and uses the standard library only: it is up in no time.
What it does is written down in `served.jsonl`, in the folder that it runs in.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

SERVED = Path("served.jsonl")

TOOLS = {
    "read_echo": "Say it again.",
    "read_env": "What a variable holds.",
    "read_pid": "Which process this is.",
    "read_slow": "Take some seconds, and listen meanwhile.",
    "read_stuck": "Take for ever, and listen to nothing.",
    "read_big": "Say so many megabytes.",
    "read_kinds": "Say it in every kind of content.",
    "read_colours": "Say it as to a terminal.",
    "read_wrong": "Say that it failed.",
    "read_refused": "Answer with an error of the protocol.",
    "read_nonsense": "Answer with what is no result.",
    "read_half": "Answer with half an emoji.",
    "read_bytes": "Answer with bytes that are not UTF-8.",
    "read_shape": "Answer with a result of that shape.",
    "read_line": "Print that line, with the request's id for `ID`.",
    "read_noise": "Print text that is not a message, and answer.",
    "write_note": "Write it down.",
    "write_gate": "Write it down, and wait for a file of that name.",
    "write_fork": "Start programs that outlive it.",
    "write_die": "Die.",
    "write_more": "Have one tool more.",
    "odd.name of a tool": "Has a name that no provider takes.",
}
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}

#: Results that the protocol does not foresee.
SHAPES: dict[str, Any] = {
    "none": None,
    "bare": {},
    "fields": {"answer": 42},
    "string": {"content": "plain"},
    "unknown": {"content": [{"type": "hologram", "data": 1}, {"type": "text", "text": "rest"}]},
    "torn": {"content": [{"type": "image"}, 7, None], "structuredContent": {"kept": True}},
    "list": {"content": [], "structuredContent": [1, 2]},
    "flag": {"content": [{"type": "text", "text": "no"}], "isError": "true"},
}
#: Tools that one or another server was seen to offer: `use_` can be used, `bad_` cannot.
ODD_TOOLS: list[Any] = [
    {"name": "use_empty", "inputSchema": {}},
    {"name": "use_none"},
    {"name": "use_required", "inputSchema": {**SCHEMA, "required": None}},
    {"name": "use_nulls", "inputSchema": {"type": "object", "properties": None, "title": None}},
    {"name": "use_hints", "inputSchema": SCHEMA, "annotations": {"readOnlyHint": "yes", "x": 1}},
    {"name": "use_odd", "inputSchema": SCHEMA, "annotations": [], "title": 5, "icons": "none"},
    {"name": "use_words", "inputSchema": SCHEMA, "description": {"en": "hi"}, "outputSchema": 1},
    {"name": "bad_list", "inputSchema": [1]},
    {"name": "bad_type", "inputSchema": {"type": "string"}},
    {"name": "bad_part", "inputSchema": {"properties": {"a": {"type": "strin"}}}},
    {"name": "bad_required", "inputSchema": {"required": "a"}},
    {"inputSchema": SCHEMA},
    "no tool",
]

modes = sys.argv[1:]
tools = dict(TOOLS)
speaking = threading.Lock()


def note(what: str, **more: Any) -> None:
    with SERVED.open("a") as served:
        served.write(json.dumps({"what": what, "pid": os.getpid(), **more}) + "\n")


def say(**message: Any) -> None:
    line = json.dumps({"jsonrpc": "2.0", **message})
    with speaking:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def say_raw(number: Any, words: bytes) -> None:
    """Answer with text that no careful server would write."""
    content = b'{"type": "text", "text": "' + words + b'"}'
    answer = b'{"jsonrpc": "2.0", "id": %d, "result": {"content": [%s]}}' % (number, content)
    with speaking:
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


def text(words: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}]}


def complete(result: dict[str, Any]) -> dict[str, Any]:
    """With what newer versions of the protocol want, and older ones pass over."""
    return {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **result}


def kinds() -> dict[str, Any]:
    blob = "aGVsbG8="
    resource = {"uri": "file:///a.txt", "mimeType": "text/plain"}
    return {
        "content": [
            {"type": "text", "text": "first"},
            {"type": "image", "data": blob, "mimeType": "image/png"},
            {"type": "audio", "data": blob, "mimeType": "audio/wav"},
            {"type": "resource_link", "name": "a", "uri": "file:///a.txt"},
            {"type": "resource", "resource": {**resource, "text": "inside"}},
            {"type": "resource", "resource": {**resource, "blob": blob}},
        ],
        "structuredContent": {"of": "all kinds"},
    }


def fork() -> str:
    sleep = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    hides = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(600)"
    programs = [
        subprocess.Popen(sleep),
        subprocess.Popen(sleep, start_new_session=True),
        subprocess.Popen([sys.executable, "-S", "-c", hides]),
    ]
    return " ".join(str(one.pid) for one in programs)


def answer(name: str, given: dict[str, Any]) -> dict[str, Any]:
    said = str(given.get("text", ""))
    match name:
        case "read_env":
            return text(os.environ.get(said, "not there"))
        case "read_pid":
            return text(str(os.getpid()))
        case "read_slow":
            time.sleep(float(said))
        case "read_stuck":
            time.sleep(600)
        case "read_big":
            return text("x" * (int(said) << 20))
        case "read_kinds":
            return kinds()
        case "read_colours":
            return text(f"\x1b[31m{said}\x1b[0m\x07")
        case "read_wrong":
            return text("the disk is full") | {"isError": True}
        case "read_nonsense":
            return {"content": "no list"}
        case "read_noise":
            with speaking:
                print("loading ...", "{", "[1, 2]", '"id"', "\x00\xff", sep="\n", flush=True)  # noqa: T201
        case "write_gate":
            while not Path(said).exists():
                time.sleep(0.01)
        case "write_fork":
            return text(fork())
        case "write_die":
            os._exit(3)
        case "write_more":
            tools["read_more"] = "New here."
            say(method="notifications/tools/list_changed")
    return text(f"{name}: {said}")


def call(number: Any, params: dict[str, Any]) -> None:
    name, given = params["name"], params.get("arguments") or {}
    note(name, **given)
    if name == "read_refused":
        fault = {"code": -32042, "message": "no such thing", "data": {"known": ["this", "that"]}}
        say(id=number, error=fault)
    elif name == "read_half":
        say_raw(number, b"a \\ud83d b \\ud83d\\ude00")
    elif name == "read_bytes":
        say_raw(number, b"a \xf0\x9f b")
    elif name == "read_line":
        with speaking:
            print(given["text"].replace("ID", json.dumps(number)), flush=True)  # noqa: T201
    elif name == "read_shape":
        say(id=number, result=SHAPES[given["text"]])
    else:
        say(id=number, result={"resultType": "complete", **answer(name, given)})


def serve(message: dict[str, Any]) -> None:
    number, params = message.get("id"), message.get("params") or {}
    match message["method"]:
        case "server/discover" if "newer" in modes:
            ability: dict[str, Any] = {"tools": {}}
            known = {"supportedVersions": ["2026-07-28"], "capabilities": ability}
            say(id=number, result=complete(known))
        case "initialize" if not {"never", "newer"} & set(modes):
            info = {"name": "fake", "version": "1"}
            version = params["protocolVersion"]
            ability = {"tools": {"listChanged": True}}
            result = {"protocolVersion": version, "capabilities": ability, "serverInfo": info}
            say(id=number, result=result)
        case "tools/list":
            note("list")
            names = [] if "empty" in modes else list(tools)
            first = params.get("cursor") is None
            half = names[: len(names) // 2] if first else names[len(names) // 2 :]
            told: list[Any] = [
                {"name": n, "description": tools[n], "inputSchema": SCHEMA} for n in half
            ]
            told += ODD_TOOLS if "schemas" in modes and not first else []
            more = {"nextCursor": "2"} if first and names else {}
            say(id=number, result=complete({"tools": told, **more}))
        case "tools/call" if params["name"] == "read_stuck":
            call(number, params)
        case "tools/call":
            threading.Thread(target=call, args=(number, params), daemon=True).start()
        case "ping":
            say(id=number, result={})
        case "notifications/cancelled":
            note("cancelled")
        case _:
            if number is not None and "never" not in modes:
                say(id=number, error={"code": -32601, "message": "Method not found"})


def main() -> None:
    note("start")
    if "broken" in modes:
        sys.exit("it cannot start: sk-canary")
    if "garbage" in modes:
        print("Welcome!\nThis is no protocol.", flush=True)  # noqa: T201
    if "stubborn" in modes:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin:
        if "garbage" not in modes:
            serve(json.loads(line))
    while "stubborn" in modes:
        time.sleep(600)


if __name__ == "__main__":
    main()
