"""Delivery of outcomes to their receivers: by webhook, to an agent, or back to the gateway."""
