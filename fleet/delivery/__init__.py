"""Outcomes go to whoever wants them: by webhook, signed, until the receiver has confirmed."""
