"""Intake without a broker: events are stored on disk, and imported when the broker is back.

The problem: while the broker is away nothing can be written to the ledger, and most senders cannot
keep their events themselves. And a write that timed out may have landed: spooled and imported
later, its event must not run twice.

    sender  -> intake -> breaker closed, spool empty -> ledger -> 202
                      `-> otherwise: spool.db, synced ----------> 202
    drainer:  breaker closed, spool not empty -> ledger, in order -> out of the spool
              breaker open, for longer than a lease -> offline process: claim, turn, commit,
              in spool.db

Storing is exact:

- Spool and ledger identify an event by the same digest, of its source, id and sender. The ids of
  its dispatches follow from the event. So the sender gets the ids that the ledger will use.
- Importing an event again answers `duplicate`, and the event has run or will run once. So nobody
  needs to know how a write that timed out ended, nor at which step the drainer was killed.
- An event leaves the spool after the ledger has it, never before.
- The order is kept. While the spool holds anything, every event of this machine's API or
  `fleet send` goes through it, even when the broker is back. The last step out of that state, "the
  spool is empty", holds the lock under which events go in.
- Accepted is accepted. `max_pending` is checked when an event goes in, against the events in the
  spool, and not again on import. The deadline counts from the acceptance. `caps` and busy sessions,
  which only the store knows, are not checked.
- The spool is bounded, in events and in bytes, and refuses the rest with 503. Each refusal is
  reported to the sender, in the log, and later on the bus.
- A damaged file is set aside while no process writes to it (`file.py`). An event that the ledger
  cannot accept, or has with other content, is quarantined. Both are reported.

Running is exact, where it is allowed (`runs.py` is the ledger of that time):

- One turn at a time rests on the lease, which is in the store. Offline it rests on a lock of this
  machine (`fleet.system.agent_lock`), which workers hold beside their lease. So offline execution
  is for fleets of one machine: workers of another one may still reach the store.
- Only an event that the ledger cannot have runs here (`submission_log.py`). An event that this
  machine ever submitted to the ledger waits for the ledger, also when repeated. An import is such a
  submission, and an event spooled before counts too. While the spool holds anything, no process of
  this machine submits an event past the spool (`acceptors.py`).
- An outcome is imported with its event in one step (`scripts/backfill.lua`), once no turn runs here
  any more. An interrupted turn goes on from its journal, in a worker.

Of all processes that share a data folder one drains: an API or upstream client that holds the
spool's lock. `fleet send` spools only while a drainer runs, so that no event waits for one that may
never come. The spool holds content, as the ledger's payloads do; its files are closed to other
users.
"""
