"""The upstream client: takes events from an outside gateway, by WebSocket or by polling.

One process of the whole fleet does so at a time (`runner`); others stand by. `client` connects to
the gateway, `event_consumer` delivers its events to the intake, `cursor_store` stores the place in
them, and `outcome_reporter` reports outcomes to the gateway.
"""
