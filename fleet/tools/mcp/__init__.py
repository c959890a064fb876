"""Servers of the Model Context Protocol that the configuration names, and how they are spoken to.

`section` is their part of `fleet.toml`; `server` is what calls their tools. Only `connection`,
`server` and the two transports import the SDK, which takes a second and 65 MB: import them where a
server is used, and nowhere else.
"""
