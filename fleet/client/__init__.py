"""A client of a fleet elsewhere, over its HTTP API: `from fleet import Fleet`."""
