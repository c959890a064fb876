"""Alerts for an operator: conditions that open and close, on the bus and by webhook.

`reading` queries the store and `conditions` evaluates the result, for `fleet doctor` too;
`scripts/alerts.lua` remembers which conditions were reported. `machine` finds and remembers the
conditions of one host, such as an outage of the store. `message` formats an alert for its receiver,
and `sender` sends it. `watch` runs them every few seconds, in the API and in the maintenance
worker: either of the two suffices. `listing` shows open and past alerts to people, and `silences`
holds who knows of one and until when; `names` are all of them.

An alert without a condition, such as `crash_loop`, comes from `fleet.ledger.bus.alert` or a script.
"""
