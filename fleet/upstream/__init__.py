"""The upstream client: takes events from an outside gateway, by WebSocket or else by polling.

One process of the whole fleet does so at a time (`runner`); others stand by. `client` speaks with
the gateway, `taker` hands what comes to the intake, `desk` keeps the place in the store, and
`teller` tells the gateway the outcomes.
"""
