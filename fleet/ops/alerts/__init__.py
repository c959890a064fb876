"""Alerts for an operator: conditions that open and close, on the bus and by webhook.

`reading` queries the store and `conditions` evaluates the result, for `fleet doctor` too;
`scripts/alerts.lua` remembers which conditions were reported. `machine` detects and remembers the
conditions to report while the store is down. `message` formats an alert for its receiver, and
`sender` sends it. `watch` runs them every few seconds, in the API and in the maintenance worker:
either of the two suffices.
"""

from fleet.ops.alerts.watch import Alerter

__all__ = ["Alerter"]
