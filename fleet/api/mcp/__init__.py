"""`POST /mcp`: the Model Context Protocol, over the fleet's own tools and over tool servers.

`section` is its configuration, `route` its door, `server` what speaks the protocol, `own` the
fleet's tools for a token, `passed` the guarded way to tool servers. Only `server` and `passed` know
the protocol's library, which costs half a second and 60 MB: the first request pays for it.
"""

#: What a call is of, where its client says so.
SESSION_HEADER, TURN_HEADER = "fleet-session", "fleet-turn"
#: The hops of the event that the caller works on, where it works in an agent's turn.
HOPS_HEADER = "fleet-hops"
