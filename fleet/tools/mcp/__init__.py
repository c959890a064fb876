"""Clients of the configured servers of the Model Context Protocol (`[tools.NAME]`).

`server` calls their tools. Only `connection`, `server` and the two transports, `program` and `web`,
import the SDK, which takes a second and 65 MB: import them only where a server is used.
"""
