"""Intake without a broker: events are stored on disk, and imported when the broker is back.

The problem: while the broker is away nothing can be written to the ledger, and most senders cannot
keep their events themselves. And a write that timed out may have landed: spooled and imported
later, its event must not run twice.

    sender  -> intake -> breaker closed, spool empty -> ledger -> 202
                      `-> otherwise: a segment, synced -------> 202
    drainer:  breaker closed, spool not empty -> ledger, in order -> the segments are deleted
              breaker open, for longer than a lease -> offline process: claim, turn, commit,
              in segments

Every process writes files of its own (`slots.py`), and only appends to them (`segments.py`). The
state is a fold over all of them (`state.py`), so what a killed process wrote counts as far as it
was whole. Those who store events do so one after the other, under a lock (`folder.py`).

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
  spool, and not again on import. The deadline counts from the acceptance, by a clock that nobody
  sets. `caps` and busy sessions, which only the store knows, are not checked.
- The spool is bounded, in events and in bytes, and refuses the rest with 503. Each refusal is
  reported to the sender, in the log, and later on the bus.
- A damaged record costs that record alone: its segment is set aside after the import. An event that
  the ledger cannot accept, or has with other content, is quarantined. Both are reported.

Running is exact, where it is allowed (`runs.py` is the ledger of that time):

- One turn at a time rests on the lease, which is in the store. Offline it rests on a lock of this
  machine (`fleet.system.agent_lock`), which workers hold beside their lease. So offline execution
  is for fleets of one machine: workers of another one may still reach the store.
- One rule says what may have run already (`Spool.may_have_run`): any event that this machine ever
  submitted to the ledger, or perhaps did (`submissions.py`). It waits for the ledger. Whoever
  submits an event first records it and then looks whether the spool is empty; whoever runs one
  looks at the record after the spool is known to hold it. So one of the two sees the other.
- An outcome is imported with its event in one step (`scripts/backfill.lua`), once no turn runs here
  any more. An interrupted turn goes on from its journal, in a worker.

Of all processes that share a data folder one drains: an API or upstream client that holds the
spool's lock. `fleet send` spools only while a drainer of the same broker runs, so that no event
waits for one that may never come. The spool holds content, as the ledger's payloads do; its files
are closed to other users.
"""
