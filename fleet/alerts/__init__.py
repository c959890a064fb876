"""What an operator is told: conditions that open and close, on the bus and by webhook.

`conditions` says what is wrong now, `scripts/alerts.lua` remembers what has been told, `message`
gives it the shape that the receiver expects, and `watch` does it all every few seconds, in the API
and in the maintenance worker: with either alone, alerts still go out.
"""

from fleet.alerts.watch import Alerter

__all__ = ["Alerter"]
