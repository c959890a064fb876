"""The calls of the scripts of a lease. The meaning of each argument is in its legend."""

from typing import Any

from fleet.store.calls import Flag
from fleet.store.script import ScriptCall


class LeaseCall(ScriptCall[list[Any]]):
    """Acquire an agent's lease."""

    agent: str
    ttl_ms: int
    holder: str
    client: str
    run: str
    lease: str
    process: str
    stolen: str


class RenewCall(ScriptCall[tuple[int, str]]):
    """Renew a lease."""

    agent: str
    fence: int
    lease: str
    ttl_ms: int
    client: str
    run: str
    process: str
    holder: str
    busy: Flag
    consuming: Flag
    beat_silence_ms: int


class ReleaseCall(ScriptCall[int]):
    """Release a lease."""

    agent: str
    fence: int
    lease: str
