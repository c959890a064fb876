"""The one door to Valkey: where it is, how to connect, and the scripts that move its state."""

from fleet.store.connection import Store, open_store

__all__ = ["Store", "open_store"]
