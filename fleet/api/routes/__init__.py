"""The handlers of the API, one module for each resource; `fleet.api.app` has the table of routes.

The bus, live text and MCP have packages beside this one. Each route is also in `fleet.api.openapi`.
"""
