"""The calls of the scripts about the life of the store; see `fleet.ledger.store_life`."""

from fleet.store.script import ScriptCall


class LifeCall(ScriptCall[str]):
    """Compare what a machine remembers of the store with the store."""

    epoch: str
    seq: int
    bus: str
    alive_ms: int
    fences: str
    lost_ms: int


class RecoverCall(ScriptCall[str]):
    """Let a fleet go on whose store went back."""
