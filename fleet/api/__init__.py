"""The HTTP API of the fleet: events in, ledger and bus out. Starlette on uvicorn."""
