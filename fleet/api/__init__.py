"""The HTTP side of the fleet: events in, the ledger and the bus out. Starlette on uvicorn."""
