"""`POST /mcp`: the Model Context Protocol, over the fleet's own tools and over tool servers.

`transport` is the route, `server` speaks the protocol, `fleet_tools` are the fleet's tools for a
token, `proxied_tools` call tool servers under locks. Only `server` and `proxied_tools` import the
protocol's SDK, which costs half a second and 60 MB: the first request pays for it.
"""

#: The session and the turn of a call, where its client names them.
SESSION_HEADER, TURN_HEADER = "fleet-session", "fleet-turn"
#: The hops of the caller's event, where it calls from an agent's turn.
HOPS_HEADER = "fleet-hops"
