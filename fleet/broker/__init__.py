"""The broker of a fleet: an embedded Valkey where none is configured, and an audit of any."""
