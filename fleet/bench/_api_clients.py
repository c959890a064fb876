"""Minimal HTTP clients: a request, its answer, the next request.

Commands come on standard input, one JSON object a line; each is answered with one.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

_LENGTH = b"content-length:"


async def _send(host: str, port: int, request: bytes, count: int, waits_ms: list[float]) -> int:
    """Send `count` requests in turn on one connection; return how many were accepted."""
    reader, writer = await asyncio.open_connection(host, port)
    accepted = 0
    for _ in range(count):
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        at = lower.index(_LENGTH) + len(_LENGTH)
        await reader.readexactly(int(lower[at : lower.index(b"\r", at)]))
        waits_ms.append((time.perf_counter() - began) * 1000)
        accepted += head.startswith(b"HTTP/1.1 202")
    writer.close()
    return accepted


async def _run(host: str, port: int, connections: int, events: int, text: str) -> dict[str, Any]:
    body = json.dumps({"to": "a", "text": text}).encode()
    head = (
        f"POST /events HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    waits_ms: list[float] = []
    began = time.perf_counter()
    each = max(1, events // connections)
    accepted = await asyncio.gather(
        *(_send(host, port, head.encode() + body, each, waits_ms) for _ in range(connections))
    )
    took_s = time.perf_counter() - began
    waits_ms.sort()
    return {
        "accepted": sum(accepted),
        "sent": each * connections,
        "accepted_per_s": sum(accepted) / took_s,
        "p99_ms": waits_ms[int(0.99 * (len(waits_ms) - 1))],
    }


def main() -> None:
    """Serve standard input until it ends."""
    for line in sys.stdin:
        request = json.loads(line)
        request.pop("do")
        print(json.dumps(asyncio.run(_run(**request))), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)
