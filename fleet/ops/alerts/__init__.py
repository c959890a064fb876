"""What an operator is told: conditions that open and close, on the bus and by webhook.

`reading` asks the store and `conditions` says what is wrong, for `fleet doctor` too;
`scripts/alerts.lua` remembers what has been told. What must be told while the store is away,
`machine` knows and remembers by itself. `message` gives an alert the shape that its receiver
expects, `sender` hands it over, and `watch` does it all every few seconds, in the API and in the
maintenance worker: with either alone, alerts still go out.
"""

from fleet.ops.alerts.watch import Alerter

__all__ = ["Alerter"]
