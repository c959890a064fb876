"""Outcomes go to whoever asked for them: by webhook, to an agent, or back to the gateway."""
